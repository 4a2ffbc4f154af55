"""Metrics of a run: lines of JSON, TensorBoard on request, and the speed of the steps."""

import importlib
import json
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, cast

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from jaxcurate.artifacts.local import exists, is_local, make_folder, parsed, write_errors
from jaxcurate.checks import InputError
from jaxcurate.training.config import PretrainConfig

NAME = "metrics.jsonl"
"""Name of the file in the folder of a run."""
PEAK_FLOPS: Mapping[str, float] = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
    "Tesla T4": 65e12,
    "Tesla V100": 125e12,
}
"""Largest rate of multiplications and additions in bfloat16 (T4 and V100: float16), without
sparsity, by the beginning of the name of a device, as its maker publishes it."""


def peak_flops(device_kind: str) -> float | None:
    """Returns the largest rate of a kind of device in bfloat16, if it is known.

    Examples:
        >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("cpu")
        (989000000000000.0, None)
    """
    names = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
    return PEAK_FLOPS[max(names, key=len)] if names else None


class Meter:
    """Speed of the steps between two lines of metrics.

    Args:
        mesh: mesh of the devices.
        settings: settings of the run.
        n_done: number of steps made before.
    """

    def __init__(self, mesh: Mesh, settings: PretrainConfig, n_done: int) -> None:
        self._batch_size, self._n_parts = settings.batch_size, settings.n_accumulate
        self._peak = peak_flops(mesh.devices.flat[0].device_kind)
        self._flops: float | None = None
        self._n_done = n_done
        self._begin = self._waited = self._aside = 0.0

    def start(self, compiled: jax.stages.Compiled) -> None:
        """Starts the clock, and reads the number of operations of a step.

        The compiler counts the loop over the parts of a batch once, and does not look into kernels
        that it did not write itself.
        """
        analysis = compiled.cost_analysis()
        flops = analysis.get("flops") if isinstance(analysis, Mapping) else None
        self._flops = None if not flops or flops <= 0 else flops * self._n_parts
        self._restart()

    def _restart(self) -> None:
        self._begin, self._waited, self._aside = time.perf_counter(), 0.0, 0.0

    @contextmanager
    def waiting(self, in_flight: Collection[jax.Array]) -> Iterator[None]:
        """Counts the time of the block as waiting for data, unless a device works at its end.

        Args:
            in_flight: results of the latest steps.
        """
        begin = time.perf_counter()
        yield
        if all(cast(Any, result).is_ready() for result in in_flight):
            self._waited += time.perf_counter() - begin

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves out the time of the block."""
        begin = time.perf_counter()
        yield
        self._aside += time.perf_counter() - begin

    def read(self, n_done: int) -> dict[str, float | None]:
        """Returns the speed since the last call, and starts anew.

        Args:
            n_done: number of steps made, all of which the devices have finished.

        Returns:
            Steps and items a second, the fraction of the largest rate of the devices that is used
            (None if it is not known), and the fraction of the time that they wait for data.
        """
        seconds = max(1e-9, time.perf_counter() - self._begin - self._aside)
        rate = (n_done - self._n_done) / seconds
        used = None
        if self._flops is not None and self._peak is not None:
            used = self._flops * rate / self._peak
        line = {
            "steps_per_second": rate,
            "images_per_second": rate * self._batch_size,
            "peak_fraction": used,
            "waiting_fraction": min(1.0, self._waited / seconds),
        }
        self._n_done = n_done
        self._restart()
        return line


class MetricsLog:
    """Lines of metrics in memory, in ``metrics.jsonl``, and for TensorBoard.

    Lines of steps after the one that a run goes on from, and a line that was cut off, are removed.
    Several processes have the same lines, which the first of them writes.

    Args:
        folder: folder of the run; None to write nothing.
        n_done: number of steps that the run goes on from.
        tensorboard: True to write for TensorBoard too.

    Raises:
        InputError: tensorboardX is not installed, or the file cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     with MetricsLog(work, 0) as log:
        ...         log.write(1, loss=2.5)
        ...         log.write(2, loss=2.0)
        ...     with MetricsLog(work, 1) as log:
        ...         log.lines
        [{'step': 1, 'loss': 2.5}]
    """

    def __init__(
        self, folder: epath.PathLike | None, n_done: int, tensorboard: bool = False
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        """Lines so far."""
        self._path = None if folder is None else epath.Path(folder) / NAME
        self._file: IO[bytes] | None = None
        self._writer: Any = None
        is_first = jax.process_index() == 0
        if self._path is None:
            return
        self.lines, n_bytes = _lines_until(self._path, n_done)
        if not is_first:
            return
        if tensorboard:
            self._writer = _tensorboard(self._path.parent / "tensorboard", n_done)
        with write_errors(self._path):
            make_folder(self._path.parent)
            if is_local(self._path):
                self._file = open(self._path, "ab")  # noqa: SIM115  closed in __exit__
                self._file.truncate(n_bytes)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()

    def write(self, step: int, **numbers: Any) -> None:
        """Writes a line.

        Args:
            step: number of steps made.
            **numbers: numbers by name, of Python, numpy or jax; None is written as ``null``.
        """
        line = {"step": step, **{name: _plain(value) for name, value in numbers.items()}}
        self.lines.append(line)
        if self._writer is not None:
            for name, value in line.items():
                if value is not None and name != "step":
                    self._writer.add_scalar(name, value, step)
        if self._path is None or jax.process_index():
            return
        with write_errors(self._path):
            if self._file is None:  # objects of a bucket cannot grow
                self._path.write_text("".join(map(_text, self.lines)))
                return
            self._file.write(_text(line).encode())
            self._file.flush()
            os.fsync(self._file.fileno())  # a checkpoint that follows must not outlive its lines


def _plain(value: Any) -> float | int | None:
    """Returns a number that JSON can store, rounded to the digits of a float32."""
    if value is None or isinstance(value, int):
        return value
    number = float(np.asarray(value))
    return float(f"{number:.9g}") if math.isfinite(number) else None


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"


def _lines_until(path: epath.Path, n_done: int) -> tuple[list[dict[str, Any]], int]:
    """Returns the lines of the first steps of a file, and their size in bytes."""
    lines, n_bytes = [], 0
    if not exists(path):
        return lines, n_bytes
    for text in path.read_bytes().splitlines(keepends=True):
        try:
            line = parsed(text.decode())
            is_kept = text.endswith(b"\n") and line["step"] <= n_done
        except (ValueError, KeyError, TypeError):
            is_kept = False
        if not is_kept:
            break
        lines.append(line)
        n_bytes += len(text)
    return lines, n_bytes


def _tensorboard(folder: epath.Path, n_done: int) -> Any:
    """Returns a writer for TensorBoard, which hides what was written for later steps."""
    try:
        writer = importlib.import_module("tensorboardX").SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard=True needs the package tensorboardX: pip install 'jaxcurate[tensorboard]'"
        ) from error
    return writer(os.fspath(folder), purge_step=n_done + 1)
