"""Times the input of JPEG pictures of 500 x 400 for training: decoding, and crops of 224 pixels.

    python scripts/bench/input.py
    python scripts/bench/input.py --pictures=2048 --rounds=7

Raw Pillow, in one process for each core, decodes files and makes the same crops, and passes nothing
on. The loader gives whole batches to the main process, by threads (0 workers) or by workers of
Grain. Contenders take turns, without the time to start; a turn begins when the buffers have been
used up. `ms` is processor time of all processes for each picture, which does not depend on what
else the machine does.
"""

import contextlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

PICTURES = flags.DEFINE_integer("pictures", 1024, "Number of pictures of a turn.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of turns of each contender.")
CASES = flags.DEFINE_list("cases", ["one", "ten"], "Crops of each picture.")
WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "Numbers of workers.")

N_FILES, BATCH, WARM = 400, 128, 512
GROUPS = {"one": ((1, 224, None),), "ten": ((2, 224, None), (8, 96, (0.05, 0.4)))}
TITLES = {"one": "1 crop of 224", "ten": "2 of 224, 8 of 96"}
SCALE, RATIO = (0.4, 1.0), 4 / 3


def write_pictures(folder: Path) -> None:
    """Writes JPEG files of gradients and noise, about 40 kB each."""
    rng = np.random.default_rng(0)
    for i in range(N_FILES):
        small = rng.integers(0, 256, (50, 63, 3), np.uint8)
        picture = Image.fromarray(small).resize((500, 400), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:04}.jpg", quality=85)


def pillow(task: tuple[list[str], list, tuple]) -> int:
    """Decodes files with Pillow alone, and makes crops."""
    paths, drawn, groups = task
    for path, boxes in zip(paths, drawn, strict=True):
        with open(path, "rb") as file:
            picture = Image.open(io.BytesIO(file.read())).convert("RGB")
        i = 0
        for n, size, _ in groups:
            for _ in range(n):
                box = boxes[i]
                np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))
                i += 1
    return len(paths)


def of_pillow(folder: Path, groups: tuple) -> Iterator[int]:
    """Yields numbers of pictures that were cropped, by one process for each core."""
    from jaxcurate.training.host_crops import crop_box, draws

    paths = sorted(map(str, folder.iterdir()))
    scales = [scale or SCALE for n, _, scale in groups for _ in range(n)]
    cores = len(os.sched_getaffinity(0))

    def tasks() -> Iterator[tuple[list[str], list, tuple]]:
        for step in range(10**6):
            rows = np.random.default_rng(step).integers(0, N_FILES, 32)
            drawn = draws(0, step, np.arange(32), len(scales))
            boxes = [
                [crop_box(u, 500, 400, s, RATIO) for u, s in zip(one, scales, strict=True)]
                for one in drawn.tolist()
            ]
            yield [paths[row] for row in rows], boxes, groups

    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        given, waiting = tasks(), []
        while True:
            while len(waiting) < 2 * cores:
                waiting.append(pool.apply_async(pillow, (next(given),)))
            yield waiting.pop(0).get()


def of_loader(folder: Path, groups: tuple, num_workers: int) -> Iterator[int]:
    """Yields numbers of pictures of batches of the loader."""
    from jaxcurate.sources import open_source
    from jaxcurate.training import Augmentation, Run
    from jaxcurate.training.grain_input import CropInput
    from jaxcurate.training.objectives import Crop

    data = CropInput(
        open_source(f"folder:{folder}"),
        Run(np.arange(N_FILES), 0),
        [Crop(n, size, scale) for n, size, scale in groups],
        Augmentation(crop_scale=SCALE, crop_ratio=RATIO),
        10**4,
        BATCH,
        num_workers=num_workers,
    )
    for fed in data.fed(0):
        yield len(fed.ids)


def processor_seconds() -> float:
    """Returns the processor time of this process and of its children."""
    total = 0
    for pid in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def turn(given: Iterator[int], n: int) -> tuple[float, float]:
    """Returns pictures a second, and milliseconds of a processor for each picture."""
    done = 0
    while done < WARM:
        done += next(given)
    begin, spent, done = time.perf_counter(), processor_seconds(), 0
    while done < n:
        done += next(given)
    seconds, spent = time.perf_counter() - begin, processor_seconds() - spent
    time.sleep(1)  # buffers are filled again
    return done / seconds, 1000 * spent / done


def compare(folder: Path, name: str, groups: tuple) -> None:
    """Prints the rates of all contenders."""
    contenders: dict[str, Callable[[], Iterator[int]]] = {
        "Pillow alone": lambda: of_pillow(folder, groups)
    }
    for number in map(int, WORKERS.value):
        contenders[f"loader, {number} workers"] = lambda number=number: of_loader(
            folder, groups, number
        )
    running = {key: start() for key, start in contenders.items()}
    measured: dict[str, list[tuple[float, float]]] = {key: [] for key in running}
    for given in running.values():
        turn(given, 1)  # starts the processes
    for _ in range(ROUNDS.value):
        for key, given in running.items():
            measured[key].append(turn(given, PICTURES.value))
    print(f"\n{name:20} {'pictures/s':>11} {'share':>7} {'ms':>6} {'share':>7}")
    rates = {
        key: [statistics.median(of) for of in zip(*all_, strict=True)]
        for key, all_ in measured.items()
    }
    best_rate, best_ms = rates["Pillow alone"]
    for key, (rate, ms) in rates.items():
        print(f"{key:20} {rate:11.0f} {rate / best_rate:7.2f} {ms:6.2f} {best_ms / ms:7.2f}")
    for given in running.values():
        given.close()  # type: ignore[attr-defined]


def main(_: list[str]) -> None:
    print(
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, "
        f"Pillow {Image.__version__}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder)
        for case in CASES.value:
            compare(folder, TITLES[case], GROUPS[case])


if __name__ == "__main__":
    app.run(main)
