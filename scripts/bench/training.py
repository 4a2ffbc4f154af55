"""Times the training step of SimCLR and of MAE beside plain PyTorch on a CPU, in turns.

    pip install torch
    python scripts/bench/training.py                    # two minutes
    python scripts/bench/training.py --batch=128 --rounds=9

Both train the same Vision Transformer in float32 on the same views: forward, backward and AdamW.
Views are made before, since PyTorch has no augmentation of its own. PyTorch runs as it is, with its
fused attention and its fused AdamW, and compiled by `torch.compile`. `images/s` is by the wall
clock, the median of the rounds, with the lowest and the highest; `a CPU second` divides
by the time of the processor, which other programs on the machine change less; `ratio` is to PyTorch
as it is. jaxcurate runs the step of its training loop, with a device for each core as on the
command line, and each contender has a process of its own. On a busy machine, `taskset -c 0` gives
all contenders one core.

On a GPU, the last line gives the images a second of ViT-S/16 at 224 pixels by SimCLR in bfloat16,
and the fraction of the rate of a large matrix product that the model's own products reach.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from math import nan
from multiprocessing.connection import Connection
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jaxcurate.models.presets import vit_config
from jaxcurate.models.vit_config import ViTArchitecture
from jaxcurate.runtime.devices import Devices
from jaxcurate.training import PretrainConfig, loop, sharding
from jaxcurate.training.objectives import MAE, Batch, ObjectiveConfig, SimCLR

ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of turns.")
STEPS = flags.DEFINE_integer("steps", 3, "Steps in a turn.")
BATCH = flags.DEFINE_integer("batch", 64, "Pictures in a batch.")
SIZE = flags.DEFINE_integer("size", 64, "Side of the pictures in pixels.")
PATCH = flags.DEFINE_integer("patch", 8, "Side of a patch in pixels.")
WIDTH = flags.DEFINE_integer("width", 192, "Number of features of a token.")
DEPTH = flags.DEFINE_integer("depth", 6, "Number of blocks.")
OBJECTIVES = flags.DEFINE_list("objectives", ["simclr", "mae"], "Objectives to time.")
COMPILE = flags.DEFINE_bool("compile", True, "Also time torch.compile, which compiles for minutes.")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = flags.DEFINE_integer("threads", CORES, "Threads of torch.")

CONTENDERS = "jaxcurate", "torch", "torch, compiled"
WARM_UP = 4
"""Number of turns that are not timed: memory is laid out in the first ones."""

MAE_SETTINGS = MAE(decoder_width=128, decoder_depth=2, decoder_heads=2)
_KEPT = ExitStack()
SIMCLR_SETTINGS = SimCLR(projection=(256, 128))


def main(argv: list[str]) -> None:
    del argv
    model = architecture()
    print(
        f"ViT of width {model.width} and depth {model.depth}, {SIZE.value} px in patches of "
        f"{PATCH.value}, batches of {BATCH.value}, {CORES} cores, jax {jax.__version__}, "
        f"{torch_version()}"
    )
    print(
        f"{'':10} {'':20} {'images/s':>9} {'low':>7} {'high':>7} {'ratio':>6} "
        f"{'a CPU second':>13} {'ratio':>6}",
        flush=True,
    )
    for name in OBJECTIVES.value:
        rates = timed(name, CONTENDERS if COMPILE.value else CONTENDERS[:2])
        base, base_processor = (np.median(found) for found in rates.get("torch", ([nan], [nan])))
        for contender, (found, by_processor) in rates.items():
            print(
                f"{name:10} {contender:20} {np.median(found):9.1f} {min(found):7.1f} "
                f"{max(found):7.1f} {np.median(found) / base:6.2f} "
                f"{np.median(by_processor):13.1f} {np.median(by_processor) / base_processor:6.2f}",
                flush=True,
            )
    if jax.default_backend() == "gpu":
        large_on_gpu()


def timed(name: str, contenders: Sequence[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Returns images a second of each contender in every round, after turns to warm up.

    Each contender has a process of its own, with its own threads and memory, and waits for its
    turn.

    Returns:
        Images a second by the wall clock, and a second of the processor.
    """
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Any] = {}
    workers = []
    for contender in contenders:
        ends[contender], far_end = context.Pipe()
        workers.append(context.Process(target=work, args=(name, contender, far_end), daemon=True))
        workers[-1].start()
        far_end.close()  # so that a worker that fails is noticed
    ends = {contender: end for contender, end in ends.items() if end.recv()}
    rates: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ends}
    n_images = STEPS.value * BATCH.value
    for _ in range(ROUNDS.value):
        for contender, end in ends.items():
            end.send(True)
            for kind, seconds in zip(rates[contender], end.recv(), strict=True):
                kind.append(n_images / seconds)
    for end in ends.values():
        end.send(False)
    for worker in workers:
        worker.join()
    return rates


def work(name: str, contender: str, end: Connection) -> None:
    """Makes the turns of a contender, each when told to, and sends the seconds that it took."""
    flags.FLAGS(sys.argv)
    views = np.random.default_rng(0).uniform(-1, 1, (2 * BATCH.value, SIZE.value, SIZE.value, 3))
    used = views[: (2 if name == "simclr" else 1) * BATCH.value].astype(np.float32)
    make = ours if contender == CONTENDERS[0] else partial(theirs, contender == CONTENDERS[2])
    run = make(name, architecture(), used)
    if run is None:
        end.send(False)
        return
    for _ in range(WARM_UP):
        run()
    end.send(True)
    while end.recv():
        begin, begin_processor = time.perf_counter(), time.process_time()
        run()
        end.send((time.perf_counter() - begin, time.process_time() - begin_processor))


def architecture() -> ViTArchitecture:
    """Returns the shape of the model that all train."""
    n_heads = WIDTH.value // 64
    return ViTArchitecture(
        SIZE.value, PATCH.value, WIDTH.value, DEPTH.value, n_heads, heads_first=True
    )


def ours(name: str, model: ViTArchitecture, views: np.ndarray) -> Callable[[], None]:
    """Returns the function that makes the steps of a turn by jaxcurate, as the loop does.

    As on the command line, each core of a CPU is a device.
    """
    cast(Any, jax.config).update("jax_num_cpu_devices", min(CORES, 8))
    step, state, batch = our_step(name, model, views)
    n_done = 0

    def run() -> None:
        nonlocal state, n_done
        for _ in range(STEPS.value):
            state, metrics = step(state, None, *batch, np.uint32(0), np.int32(n_done))
            n_done += 1
        metrics["gradient_norm"].block_until_ready()

    return run


class Views:
    """Input of a training whose views are made before, as far as the step needs an input."""

    constants = None

    def views(self, constants: Any, arrays: Any, ids: jax.Array, *_: Any) -> Batch:
        """Returns the views as they are."""
        del constants
        return Batch(arrays, ids)


def our_step(
    name: str, model: ViTArchitecture, views: np.ndarray
) -> tuple[Callable[..., Any], loop.State, tuple[Any, ...]]:
    """Returns the compiled step of the training loop, its first state, and the batch."""
    objectives = ObjectiveConfig(name, simclr=SIMCLR_SETTINGS, mae=MAE_SETTINGS)
    settings = PretrainConfig(model=model, objective=objectives, n_steps=10_000)
    mesh = sharding.mesh_of(Devices.all())
    begin = partial(loop.start, settings=settings)
    shapes = jax.eval_shape(begin, np.uint32(0))
    shardings = sharding.state_shardings(shapes, mesh, settings.shard_bytes)
    state = jax.jit(begin, out_shardings=shardings)(np.uint32(0))
    ids = np.arange(len(views) // (2 if name == "simclr" else 1), dtype=np.int32)
    batch = (sharding.put_batch(views, mesh),), sharding.put_batch(ids, mesh)
    step = loop.jit_step(settings, cast(Any, Views()), mesh, shardings)
    place = np.uint32(0), np.int32(0)
    lowered = step.lower(state, None, *batch, *place)
    compiled = _KEPT.enter_context(loop.compiled_step(lowered, settings.n_steps))
    return compiled, state, batch


def torch_version() -> str:
    """Returns the version of torch, in words."""
    try:
        import torch
    except ImportError:
        return "no torch"
    return f"torch {torch.__version__}"


def theirs(
    is_compiled: bool, name: str, model: ViTArchitecture, views: np.ndarray
) -> Callable[[], None] | None:
    """Returns the function that makes the steps of a turn by PyTorch, if it is installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(THREADS.value)
    pixels = torch.tensor(views.transpose(0, 3, 1, 2))
    torch.manual_seed(0)
    network = torch_network(name, model)
    loss = torch.compile(network) if is_compiled else network
    steps = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.05, fused=True)

    def run() -> None:
        for _ in range(STEPS.value):
            steps.zero_grad()
            loss(pixels).backward()
            steps.step()

    return run


def torch_network(name: str, model: ViTArchitecture) -> Any:
    """Returns a module from views to the loss, with the shapes of ours."""
    import torch
    from torch import nn
    from torch.nn import functional as f

    class Block(nn.Module):
        def __init__(self, width: int, n_heads: int) -> None:
            super().__init__()
            self.n_heads = n_heads
            self.norm_1, self.norm_2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, n, width = x.shape
            qkv = self.qkv(self.norm_1(x)).reshape(b, n, 3, self.n_heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            mixed = f.scaled_dot_product_attention(q, k, v)
            x = x + self.out(mixed.transpose(1, 2).reshape(b, n, width))
            return x + self.down(f.gelu(self.up(self.norm_2(x)), approximate="tanh"))

    n_patches = model.grid**2

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, model.width, model.patch_size, model.patch_size)
            self.places = nn.Buffer(0.02 * torch.randn(1, n_patches, model.width))
            blocks = [Block(model.width, model.n_heads) for _ in range(model.depth)]
            self.blocks = nn.Sequential(*blocks)
            self.norm = nn.LayerNorm(model.width, 1e-6)

        def forward(self, pixels: Any, keep: Any = None) -> Any:
            x = self.embed(pixels).flatten(2).transpose(1, 2) + self.places
            if keep is not None:
                x = torch.take_along_dim(x, keep[..., None], 1)
            return self.norm(self.blocks(x))

    class ContrastiveLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            hidden, out = SIMCLR_SETTINGS.projection
            self.encoder = Encoder()
            self.head = nn.Sequential(
                nn.Linear(model.width, hidden), nn.ReLU(), nn.Linear(hidden, out)
            )

        def forward(self, pixels: Any) -> Any:
            z = f.normalize(self.head(self.encoder(pixels).mean(1)))
            logits = z @ z.T / SIMCLR_SETTINGS.temperature
            logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
            return f.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))

    class MaskedLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = MAE_SETTINGS.decoder_width
            self.encoder, self.into = Encoder(), nn.Linear(model.width, width)
            self.mask = nn.Parameter(torch.zeros(1, 1, width))
            self.places = nn.Buffer(0.02 * torch.randn(1, n_patches, width))
            heads = MAE_SETTINGS.decoder_heads
            blocks = [Block(width, heads) for _ in range(MAE_SETTINGS.decoder_depth)]
            self.decoder = nn.Sequential(*blocks, nn.LayerNorm(width, 1e-6))
            self.out = nn.Linear(width, 3 * model.patch_size**2)

        def forward(self, pixels: Any) -> Any:
            n_kept = MAE_SETTINGS.n_kept(model)
            order = torch.rand(len(pixels), n_patches).argsort(1)
            seen, masked = order[:, :n_kept], order[:, n_kept:]
            known = self.into(self.encoder(pixels, seen))
            guessed = self.mask.expand(*masked.shape, -1)
            places = self.places.expand(len(pixels), -1, -1)
            x = torch.cat([known, guessed], 1) + torch.take_along_dim(places, order[..., None], 1)
            drawn = self.out(self.decoder(x)[:, n_kept:])
            side = model.patch_size
            patches = f.unfold(pixels, side, stride=side).transpose(1, 2)
            wanted = torch.take_along_dim(patches, masked[..., None], 1)
            wanted = (wanted - wanted.mean(-1, keepdim=True)) / (
                wanted.var(-1, keepdim=True) + 1e-6
            ).sqrt()
            return (drawn - wanted).square().mean()

    return ContrastiveLoss() if name == "simclr" else MaskedLoss()


def large_on_gpu(batch: int = 256) -> None:
    """Prints the rate of ViT-S/16 at 224 pixels in bfloat16, beside that of a matrix product."""
    model = vit_config("S", precision="bfloat16")
    views = np.random.default_rng(0).uniform(-1, 1, (2 * batch, 224, 224, 3)).astype(np.float32)
    run, n = ours("simclr", model, views), 20
    run()
    begin = time.perf_counter()
    for _ in range(0, n, STEPS.value):
        run()
    seconds = (time.perf_counter() - begin) / len(range(0, n, STEPS.value)) / STEPS.value

    side = 8192
    a = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    begin = time.perf_counter()
    for _ in range(n):
        b = product(a)
    b.block_until_ready()
    peak = 2 * side**3 * n / (time.perf_counter() - begin)

    tokens, w = model.grid**2 + 1, model.width
    forward = model.depth * (24 * tokens * w**2 + 4 * tokens**2 * w) + 2 * tokens * w * 768
    share = 3 * forward * 2 * batch / seconds / peak
    print(
        f"ViT-S/16, 224 px, bfloat16, batches of {batch} in two views on "
        f"{jax.devices()[0].device_kind}: {batch / seconds:.0f} images/s, {share:.0%} of the "
        f"{peak / 1e12:.0f} TFLOP/s of a matrix product"
    )


if __name__ == "__main__":
    app.run(main)
