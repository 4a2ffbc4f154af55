"""Progress of long work: a bar on a terminal, plain lines in a log, and seconds of each stage."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Reporter of progress on standard error, which also adds up the seconds of each stage.

    Args:
        quiet: If True, prints nothing.

    Examples:
        >>> from jaxcurate.runtime import Progress
        >>> progress = Progress(quiet=True)
        >>> with progress.timed("cluster"):
        ...     pass
        >>> list(progress.seconds)
        ['cluster']
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.seconds: dict[str, float] = {}
        self._bar: tqdm | None = None
        self._task = ""
        self._begun = self._reported = 0.0
        self._last_event = time.perf_counter()

    def line(self, text: str) -> None:
        """Prints one line."""
        if not self.quiet:
            self._close()
            self._last_event = time.perf_counter()
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time spent within the ``with`` block to that of a stage."""
        begun = self._last_event = time.perf_counter()
        try:
            yield
        finally:
            self._close()
            spent = time.perf_counter() - begun
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def __call__(self, task: str, done: int, total: int) -> None:
        """Reports the number of finished steps, their rate, and the time left."""
        if self.quiet:
            return
        if task != self._task:
            self._close()
            now = time.perf_counter()
            # The first report may come after the first steps, for which time has passed already.
            self._task, self._begun = task, self._last_event if done else now
            self._reported = now
            if sys.stderr.isatty():
                self._bar = tqdm(total=total, desc=f"  {task}", leave=False, dynamic_ncols=True)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        else:
            self._tell(task, done, total)
        if done >= total:
            self._close()

    def where_time_went(self) -> str:
        """Returns a table of the seconds of each stage."""
        rows = [f"  {stage:<10}{spent:8.1f} s" for stage, spent in self.seconds.items()]
        return "\n".join([*rows, f"  {'in all':<10}{sum(self.seconds.values()):8.1f} s"])

    def _tell(self, task: str, done: int, total: int) -> None:
        now = time.perf_counter()
        spent = now - self._begun
        if done and (done >= total or now - self._reported > _SECONDS_BETWEEN_LINES):
            rate = done / max(spent, 1e-9)
            left = (total - done) / rate
            told = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
            print(
                f"  {task}: {done}/{total}, {told} a second, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
            self._reported = now

    def _close(self) -> None:
        if self._task:
            self._last_event = time.perf_counter()
        if self._bar is not None:
            self._bar.close()
        self._bar, self._task = None, ""
