"""Checkpoints of one large run, written by Orbax while the run goes on.

A checkpoint holds the state on the devices, and as JSON the place in the input, the best score so
far, and what the run was made from. It appears under its number once it is whole, so that a kill
at any moment leaves the one before it. No other file knows Orbax.
"""

import contextlib
import dataclasses
import errno
import gc
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from jaxcurate.artifacts import files
from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError, short_repr
from jaxcurate.runtime import steps
from jaxcurate.runtime.devices import Devices
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.input import Input

NAME = "checkpoints"
"""Name of the folder in that of a run."""
CONTROLS = (
    *("log_every", "eval_every", "checkpoint_steps", "checkpoint_minutes", "keep", "tensorboard"),
    *("runs_per_device", "shard_bytes"),
)
"""Settings that may change between a checkpoint and the run that goes on from it."""
_STATE, _NOTES = "state", "notes"
_STAY = "finished ones stay, and the same call goes on from the latest"
State = TypeVar("State")


class Notes(NamedTuple):
    """Facts that a run carries besides its state on the devices."""

    step: int = 0
    """Number of steps made."""
    input: dict[str, Any] | None = None
    """State of the input."""
    best: float | None = None
    """Highest score of an evaluation so far."""


def check_place(folder: epath.PathLike) -> None:
    """Refuses a folder that Orbax cannot write to.

    Raises:
        InputError: the message names the folder.

    Examples:
        >>> check_place("s3://bucket/run")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: s3://bucket/run: Orbax writes checkpoints of a run to local \
folders and to gs://, not to s3://; choose such a folder, or evaluate.parallel='runs', which needs \
none
    """
    path = os.fspath(folder)
    if not is_local(path) and not path.startswith("gs://"):
        raise InputError(
            f"{path}: Orbax writes checkpoints of a run to local folders and to gs://, not to "
            f"{path.partition('://')[0]}://; choose such a folder, or evaluate.parallel='runs', "
            "which needs none"
        )


class Checkpoints:
    """Checkpoints of a run, by steps or by time, of which the latest ones are kept.

    Each of several processes calls every method.

    Args:
        folder: folder of the run; None to save nothing.
        settings: settings of the run.
        seed: seed of the run.
        data: input of the run.
        devices: devices of the run.

    Raises:
        InputError: Orbax is not installed, or the folder cannot be made.
    """

    def __init__(
        self,
        folder: epath.PathLike | None,
        settings: PretrainConfig,
        seed: int,
        data: Input,
        devices: Devices,
    ) -> None:
        self._settings, self._devices = settings, devices
        self._saved = time.monotonic()
        self._path, self._manager, self._stack = epath.Path(), None, ExitStack()
        if folder is None:
            return
        check_place(folder)
        self._path = epath.Path(folder) / NAME
        if is_local(self._path):
            self._path = epath.Path(os.path.abspath(self._path))  # Orbax takes no other
        self._made_from = _made_from(settings, seed, data)
        with self._errors("make"):
            self._manager = _manager(self._path, settings.keep, devices)

    def __enter__(self) -> "Checkpoints":
        self._stack.enter_context(_orbax_quiet())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if self._manager is None:
                return
            if error is None:
                with self._errors("write"):
                    self._manager.close()
            else:  # the first error is the one to show
                with contextlib.suppress(Exception):
                    self._manager.close()

    def restore(self, state: State) -> tuple[State, Notes] | None:
        """Returns the state and the notes of the latest checkpoint; None if there is none.

        Args:
            state: a state of the run, whose arrays tell types, shapes and places on the devices.
                The checkpoint may be that of other devices.

        Raises:
            InputError: the checkpoint is one of other settings, or is damaged.
        """
        if self._manager is None or (step := self._manager.latest_step()) is None:
            return None
        import orbax.checkpoint as ocp

        self._step("restore")
        with self._errors("read", step):
            args = ocp.args.Composite(**{_NOTES: ocp.args.JsonRestore()})
            notes = self._manager.restore(step, args=args)[_NOTES]
        self._check_made_from(notes["made_from"], step)

        def like(x: jax.Array) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

        with self._errors("read", step):
            arrays = ocp.args.StandardRestore(jax.tree.map(like, _named(state)))
            restored = self._manager.restore(step, args=ocp.args.Composite(**{_STATE: arrays}))
        leaves = [restored[_STATE][name] for name in _named(state)]
        state = jax.tree.unflatten(jax.tree.structure(state), leaves)
        return state, Notes(step, notes["input"], notes["best"])

    def plan(self, n_done: int, is_together: bool, is_asked: bool) -> tuple[bool, bool]:
        """Returns whether to stop after this step, and whether to save a checkpoint.

        Several processes agree, which takes a moment; therefore they do so at some steps only.

        Args:
            n_done: number of steps made.
            is_together: True at the steps at which several processes agree.
            is_asked: True if a signal asked this process to stop.
        """
        settings, is_last = self._settings, n_done == self._settings.n_steps
        is_late = time.monotonic() - self._saved >= 60 * settings.checkpoint_minutes
        if self._devices.span_processes:
            is_asked, is_late = self._agreed(is_asked, is_late) if is_together else (False, False)
        elif self._manager is not None:
            is_asked = is_asked or self._manager.reached_preemption(n_done)
        if settings.checkpoint_steps is not None:
            is_late = n_done % settings.checkpoint_steps == 0
        return is_asked, self._manager is not None and (is_asked or is_late or is_last)

    def save(self, state: Any, notes: Notes) -> None:
        """Begins to write a checkpoint; the copy to the host is made before it returns.

        Raises:
            InputError: this checkpoint, or the one before it, cannot be written.
        """
        assert self._manager is not None
        import orbax.checkpoint as ocp

        self._step("save")
        self._check_room(state)
        about = {"made_from": self._made_from, "input": notes.input, "best": notes.best}
        args = {
            _STATE: ocp.args.StandardSave(_named(state)),
            _NOTES: ocp.args.JsonSave(about),
        }
        with self._errors("write"):  # of this checkpoint, or of the one before it
            self._manager.save(notes.step, args=ocp.args.Composite(**args), force=True)
        self._saved = time.monotonic()

    def wait(self) -> None:
        """Waits until the latest checkpoint is written.

        Raises:
            InputError: it cannot be written.
        """
        if self._manager is not None:
            with self._errors("write"):
                self._manager.wait_until_finished()

    def _step(self, name: str) -> None:
        if self._devices.span_processes:
            steps.begin(f"{name} a checkpoint")

    def _agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Returns each of the wishes that any process has."""
        steps.begin("agree on a checkpoint")
        said = multihost_utils.process_allgather(np.array(wishes, np.int32))
        return tuple(map(bool, said.any(axis=0)))

    def _check_room(self, state: Any) -> None:
        """Refuses to begin a checkpoint that the disk has no room for.

        Orbax would notice in the middle, and its libraries print traces from their threads.
        """
        if not is_local(self._path):
            return
        shards = [
            shard.data
            for x in jax.tree.leaves(state)
            for shard in x.addressable_shards
            if not shard.replica_id
        ]
        n_bytes, free = sum(x.nbytes for x in shards), shutil.disk_usage(self._path).free
        if n_bytes > free:
            raise InputError(
                f"cannot write a checkpoint of {n_bytes} bytes in {self._path}: {free} bytes are "
                f"free; {_STAY}"
            )

    def _check_made_from(self, there: dict[str, Any], step: int) -> None:
        for name, now in self._made_from.items():
            before = there.get(name)
            if before != now:
                raise InputError(
                    f"{self._path / str(step)} is a checkpoint of other settings: "
                    f"{name}={short_repr(before)}, now {short_repr(now)}; restore them, or choose "
                    "another folder"
                )

    @contextmanager
    def _errors(self, verb: str, step: int | None = None) -> Iterator[None]:
        """Turns an error of the file system, or of Orbax's reader, into one line."""
        place = self._path if step is None else self._path / str(step)
        line = None
        try:
            yield
        except ImportError:
            line = "checkpoints need the package orbax-checkpoint: pip install orbax-checkpoint"
        except InputError:
            raise
        except Exception as error:
            if verb == "read":
                advice = "remove it to go on from the one before, or from the start"
            elif _is_of_files(error):
                advice = _STAY
            else:
                raise
            what = "" if verb == "read" else "a checkpoint in "
            line = f"cannot {verb} {what}{place}: {_reason(error)}; {advice}"
        if line is not None:
            # Orbax leaves coroutines behind, which would complain at the end of the program. They
            # end here, where nothing holds them any more.
            gc.collect()
            raise InputError(line)


@contextmanager
def _orbax_quiet() -> Iterator[None]:
    """Leaves out what Orbax logs of errors, with their traces: they are raised as one line."""
    logger = logging.getLogger("absl")

    def is_other(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _manager(path: epath.Path, keep: int, devices: Devices) -> Any:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
    )
    return ocp.CheckpointManager(path, options=options, item_names=(_STATE, _NOTES))


def _named(state: Any) -> dict[str, jax.Array]:
    """Returns the arrays of a state by their places, such as ``0.params.encoder.norm.bias``.

    A checkpoint is thus one of plain arrays, whatever classes the libraries put around them.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _made_from(settings: PretrainConfig, seed: int, data: Input) -> dict[str, Any]:
    """Returns all that a run depends on, by name: each setting, the seed, and the data."""
    plain = dataclasses.asdict(settings)
    objective = plain.pop("objective")
    chosen = objective["name"]
    kind = settings.objective.chosen.kind
    unused = {*CONTROLS, "bert" if kind == "picture" else "model"}
    made_from = dict(_flat("objective.", {"name": chosen, chosen: objective[chosen]}))
    made_from |= dict(_flat("", {name: v for name, v in plain.items() if name not in unused}))
    constants = [files.array_digest(np.asarray(x)) for x in jax.tree.leaves(data.constants)]
    made_from |= {"seed": seed, "data": files.fingerprint([type(data).__name__, constants])}
    return json.loads(json.dumps(made_from))


def _flat(prefix: str, value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, entry in value.items():
        if isinstance(entry, dict):
            yield from _flat(f"{prefix}{name}.", entry)
        else:
            yield f"{prefix}{name}", entry


def _is_of_files(error: Exception) -> bool:
    """Returns whether an error, perhaps of the library below Orbax, is one of the file system."""
    words = "No space left", "RESOURCE_EXHAUSTED", "File too large", "quota", "Permission denied"
    return isinstance(error, OSError) or any(word in str(error) for word in words)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(code) in str(error):
            return os.strerror(code)
    lines = str(error).splitlines()
    return re.sub(r"\s+", " ", lines[0] if lines else type(error).__name__)[:200]
