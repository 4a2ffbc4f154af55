"""Times Vision Transformers of published shapes beside transformers on a CPU, in turns.

    pip install torch transformers
    python scripts/bench/encoders.py                 # a minute
    python scripts/bench/encoders.py --rounds=9 --batch=64

Both have the same random weights, in float32, and are compiled or warmed up before. jaxcurate has a
device for each core, as on the command line. `images/s` is
by the wall clock, the median of the rounds, with the lowest and the highest; `a CPU second` divides
by the time of the processor instead, which other programs on the machine change less. `gap` is
the largest absolute difference of the features.
"""

import os
import tempfile
import time

import numpy as np
from absl import app, flags

ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of turns.")
BATCH = flags.DEFINE_integer("batch", 32, "Images in a batch.")
SIZE = flags.DEFINE_integer("size", 224, "Side of the images in pixels.")
THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Threads of torch.")


def main(argv: list[str]) -> None:
    del argv
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(THREADS.value))
    import jax
    import torch
    import transformers
    from flax import nnx

    from jaxcurate.models import load_vit
    from jaxcurate.runtime.devices import Devices

    torch.set_num_threads(THREADS.value)
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14
    )
    theirs = transformers.Dinov2Model(config).eval()
    with tempfile.TemporaryDirectory() as work:
        theirs.save_pretrained(work)
        model, _ = load_vit(work)
    graph, state = nnx.split(model)
    ours = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    images = np.random.default_rng(0).normal(size=(BATCH.value, SIZE.value, SIZE.value, 3))
    images = images.astype(np.float32)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2))
    placed, _ = Devices.all().put_rows(images)

    def by_torch() -> np.ndarray:
        with torch.inference_mode():
            return theirs(pixels).last_hidden_state[:, 0].numpy()

    def by_jax() -> np.ndarray:
        return np.asarray(ours(state, placed))

    contenders = {"jaxcurate": by_jax, "torch + transformers": by_torch}
    first = {name: run() for name, run in contenders.items()}
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS.value):
        for name, run in contenders.items():
            begin, begin_processor = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - begin)
            processor[name].append(time.process_time() - begin_processor)
    gap = np.abs(first["jaxcurate"] - first["torch + transformers"]).max()
    print(
        f"DINOv2-S/14, {SIZE.value} px, batches of {BATCH.value}, {os.cpu_count()} cores, "
        f"jax {jax.__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, gap {gap:.1e}"
    )
    print(f"{'':24} {'images/s':>9} {'low':>7} {'high':>7} {'a CPU second':>13}")
    for name in contenders:
        rates, by_processor = (BATCH.value / np.array(t[name]) for t in (wall, processor))
        print(
            f"{name:24} {np.median(rates):9.1f} {rates.min():7.1f} {rates.max():7.1f} "
            f"{np.median(by_processor):13.1f}"
        )


if __name__ == "__main__":
    app.run(main)
