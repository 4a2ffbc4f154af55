"""Prints tables of programs compiled for TPU slices without a TPU: kernels, training, weak scaling.

    pip install libtpu
    python scripts/bench/slices.py                             # 10 M x 1024 to 100 k clusters
    python scripts/bench/slices.py --slices=v5e-256,v5p:4x4x4 --rows=743000000
    python scripts/bench/slices.py --kernels=ring --slices=v5p:4x4x4 --rows=743000000 \\
        --clusters=10000000
    python scripts/bench/slices.py --table=training --slices=v5e-16,v6e-8 \\
        --configs=configs/published/imagenet_dino_vits16.py
    python scripts/bench/slices.py --table=weak --slices=v5e-8,v5e-64,v5e-256
    python scripts/bench/slices.py --table=counted --slices=v5e-8,v5e-64,v5e-256  # needs no libtpu

Bytes on a chip are those that the compiler of TPUs reports: arguments (rows and centroids, or state
and batch), and temporaries. Seconds are not measured: `matrix` is the time for which the operations
occupy the matrix units at their peak rate, `memory` that of the data which has to be moved, and
`roofline` the fraction of the peak that the matrix units reach, 1 if they and not the memory are
the limit. In the table of weak scaling each chip has the same number of rows and pictures.
"""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import dataclasses
import importlib.util
import time
from pathlib import Path

from absl import app, flags

from jaxcurate import Level
from jaxcurate.config import ClusterConfig, Config, EvaluateConfig, SampleConfig
from jaxcurate.dataclass_fields import to_dataclass
from jaxcurate.encoders import EmbedConfig
from jaxcurate.kmeans.kernels.tpu import block_side
from jaxcurate.models.presets import vit_config
from jaxcurate.planning import (
    Ask,
    plan_stage,
    steps_of_clustering,
    steps_of_embedding,
    steps_of_evaluation,
)
from jaxcurate.planning.ahead_of_time import Compiled, compiled, devices_of
from jaxcurate.planning.embedding import compile_encoder, encoding_of
from jaxcurate.planning.kernels import BLOCK, kernels
from jaxcurate.planning.machines import Machine, tpu_slice
from jaxcurate.planning.page import duration, size
from jaxcurate.planning.training_step import compile_training_step, flops_of_step
from jaxcurate.runtime.devices import padded_size
from jaxcurate.training import PretrainConfig

TABLE = flags.DEFINE_enum(
    "table", "kernels", ["kernels", "training", "weak", "counted"], "Table to print."
)
SLICES = flags.DEFINE_list("slices", ["v5e-8", "v6e-8"], "Slices to compile for.")
KERNELS = flags.DEFINE_list("kernels", ["iterations"], "Kernels to compile.")
ROWS = flags.DEFINE_integer("rows", 10_000_000, "n")
COLUMNS = flags.DEFINE_integer("columns", 1024, "d")
CLUSTERS = flags.DEFINE_integer("clusters", 100_000, "k")
CONFIGS = flags.DEFINE_list("configs", [], "Configuration files, for the table of training.")
A_CHIP = flags.DEFINE_integer("rows_a_chip", 1_250_000, "Rows of a chip, for weak scaling.")
BLOCKS = flags.DEFINE_integer("blocks", 12, "Blocks of the ViT-S/16, for weak scaling.")
PARTS = flags.DEFINE_list("parts", ["embed", "cluster", "pretrain"], "Rows of weak scaling.")


def settings_of(path: str | Path) -> PretrainConfig:
    """Returns the settings of pretraining in a configuration file."""
    spec = importlib.util.spec_from_file_location("planned", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return to_dataclass(Config, module.get_config(), "config").evaluate.pretraining


def moved_bytes(n: int, d: int, k: int, precision: str) -> float:
    """Returns the bytes that the fused kernel of an assignment reads for ``n`` rows of a chip."""
    number = {"float32": 4, "bfloat16": 2}[precision]
    return 4.0 * n * d + n / block_side(d) * k * d * number


def print_kernels() -> None:
    """Prints a line for each slice, kernel and precision."""
    n, d, k = ROWS.value, COLUMNS.value, CLUSTERS.value
    print(f"n={n} d={d} k={k}")
    print(
        f"{'slice':10} {'chips':>5} {'kernel':10} {'precision':9} {'rows GB':>8} {'temp GB':>8} "
        f"{'of memory':>9} {'s matrix':>8} {'s memory':>8} {'roofline':>8}  collectives"
    )
    for name in SLICES.value:
        machine = tpu_slice(name)
        devices = devices_of(machine.topology)
        padded = padded_size(n, devices.count * BLOCK)
        made = kernels(padded, d, padded_size(k, devices.count), devices.count)
        for kernel in KERNELS.value:
            for precision in ("float32", "bfloat16"):
                found = compiled(devices, made[kernel], precision=precision)
                share = (found.arguments + found.temporaries) / machine.chip.memory
                matrix = machine.seconds(2.0 * n * d * k, 0, precision)
                moved = moved_bytes(padded // devices.count, d, k, precision)
                memory = moved / machine.chip.bandwidth
                print(
                    f"{name:10} {devices.count:5} {kernel:10} {precision:9} "
                    f"{found.arguments / 1e9:8.2f} {found.temporaries / 1e9:8.2f} {share:9.2f} "
                    f"{matrix:8.2f} {memory:8.2f} {matrix / max(matrix, memory):8.2f}  "
                    f"{found.named}",
                    flush=True,
                )


def print_training() -> None:
    """Prints a line for each configuration and slice; `days` is that of all steps at the limit."""
    print(
        f"{'slice':8} {'chips':>5} {'configuration':24} {'state GB':>8} {'temp GB':>8} "
        f"{'of memory':>9} {'ms matrix':>9} {'ms memory':>9} {'roofline':>8} {'days':>6}  "
        "collectives"
    )
    for path in CONFIGS.value:
        settings = settings_of(path)
        for name in SLICES.value:
            machine, begun = tpu_slice(name), time.perf_counter()
            made = compile_training_step(settings, devices_of(machine.topology).mesh)
            matrix, memory = made.flops / machine.chip.bfloat16, made.moved / machine.chip.bandwidth
            days = max(matrix, memory) * settings.n_steps / 86400
            share = (made.arguments + made.temporaries) / machine.chip.memory
            print(
                f"{name:8} {machine.n_chips:5} {Path(path).stem:24} {made.arguments / 1e9:8.2f} "
                f"{made.temporaries / 1e9:8.2f} {share:9.2f} "
                f"{matrix * 1e3:9.1f} {memory * 1e3:9.1f} {matrix / max(matrix, memory):8.2f} "
                f"{days:6.2f}  {made.named} (compiled in {time.perf_counter() - begun:.0f} s)",
                flush=True,
            )


def print_weak() -> None:
    """Prints a row in Markdown for each stage and slice, with the same work on each chip."""
    print(
        "| stage | chips | work | arguments a chip | temporaries a chip | n x k a chip | matrix "
        "| memory | links | collectives |\n" + "| --- " * 10 + "|"
    )
    for name in SLICES.value:
        machine = tpu_slice(name)
        for part in PARTS.value:
            {"embed": weak_embed, "cluster": weak_cluster, "pretrain": weak_pretrain}[part](machine)


def print_counted() -> None:
    """Prints a row in Markdown for each stage and slice, as `jaxcurate plan` counts them."""
    print("| stage | chips | work | time | a chip | links a chip |\n" + "| --- " * 6 + "|")
    for name in SLICES.value:
        machine = tpu_slice(name)
        n = A_CHIP.value * machine.n_chips
        training = PretrainConfig(
            model=vit_config("S", patch_size=16, precision="bfloat16", depth=BLOCKS.value),
            batch_size=64 * machine.n_chips,
            n_steps=1,
        )
        settings = Config(
            source="pictures",
            embed=EmbedConfig("efficientnet_lite0"),
            cluster=ClusterConfig((Level(CLUSTERS.value),), init="k-means||"),
            sample=SampleConfig(size=1000),
            evaluate=EvaluateConfig(
                arms=("curated",), n_seeds=1, parallel="batch", pretraining=training
            ),
        )
        columns = COLUMNS.value
        ask = Ask(settings, machine, n, columns, "picture", item_bytes=5e4, compile_seconds=0.0)
        for stage, steps_of, work in (
            ("embed", steps_of_embedding, f"{n:,} pictures"),
            ("cluster", steps_of_clustering, f"{n:,} x {columns} to {CLUSTERS.value:,}"),
            ("pretrain", steps_of_evaluation, f"{training.batch_size:,} pictures, two views"),
        ):
            plan = plan_stage(stage, ask, steps_of)
            print(
                f"| {stage} | {machine.n_chips} {machine.chip.name} | {work} "
                f"| {duration(plan.seconds)} | {size(plan.chip_bytes)} | {size(plan.exchanged)} |",
                flush=True,
            )


def weak_embed(machine: Machine) -> None:
    """Prints the row of a batch of pictures through EfficientNet-Lite0."""
    encoding, a_chip = encoding_of(EmbedConfig("efficientnet_lite0"), "picture"), 96
    made = compile_encoder(encoding, machine.topology or "", a_chip)
    n = a_chip * machine.n_chips
    matrix = machine.seconds(n * encoding.flops, 0)
    row("embed", machine, f"{n:,} pictures", made, matrix, made.moved / machine.chip.bandwidth)


def weak_cluster(machine: Machine) -> None:
    """Prints the row of an iteration in which no distance is left out."""
    d, k = COLUMNS.value, CLUSTERS.value
    a_chip = padded_size(A_CHIP.value, BLOCK)
    n = a_chip * machine.n_chips
    made = compiled(
        devices_of(machine.topology or ""),
        kernels(n, d, k, machine.n_chips)["iterations"],
        precision="bfloat16",
    )
    matrix = machine.seconds(2.0 * n * d * k, 0, "bfloat16")
    memory = moved_bytes(a_chip, d, k, "bfloat16") / machine.chip.bandwidth
    links = machine.exchange(3 * 4.0 * k * d)
    row("cluster", machine, f"{n:,} x {d} to {k:,}", made, matrix, memory, links, 4.0 * a_chip * k)


def weak_pretrain(machine: Machine) -> None:
    """Prints the row of a step of SimCLR with a ViT-S/16, 64 pictures of 224 pixels a chip."""
    model = vit_config("S", patch_size=16, precision="bfloat16", depth=BLOCKS.value)
    settings = PretrainConfig(model=model, batch_size=64 * machine.n_chips)
    made = compile_training_step(settings, devices_of(machine.topology or "").mesh)
    alone = flops_of_step(dataclasses.replace(settings, batch_size=64))
    matrix = alone / machine.chip.bfloat16
    memory = made.moved / machine.chip.bandwidth
    links = machine.exchange(float(made.exchanged.total()))
    work = f"{settings.batch_size:,} pictures, two views, {model.depth} blocks"
    row("pretrain", machine, work, made, matrix, memory, links)


def row(
    stage: str,
    machine: Machine,
    work: str,
    made: Compiled,
    matrix: float,
    memory: float,
    links: float = 0.0,
    never: float = 0.0,
) -> None:
    """Prints a row of the table of weak scaling."""
    avoided = f"{never / 1e9:.1f} GB" if never else ""
    print(
        f"| {stage} | {machine.n_chips} {machine.chip.name} | {work} "
        f"| {made.arguments / 1e9:.2f} GB | {made.temporaries / 1e9:.2f} GB | {avoided} "
        f"| {matrix * 1e3:.1f} ms | {memory * 1e3:.1f} ms | {links * 1e3:.1f} ms "
        f"| {made.named or 'none'} |",
        flush=True,
    )


def main(argv: list[str]) -> None:
    del argv
    tables = {"kernels": print_kernels, "training": print_training, "weak": print_weak}
    (tables | {"counted": print_counted})[TABLE.value]()


if __name__ == "__main__":
    app.run(main)
