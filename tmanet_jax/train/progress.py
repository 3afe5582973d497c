"""How far a run is: a bar on a terminal, lines elsewhere."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

from tmanet_jax.parallel import distributed


class Progress:
    """Steps that are done, and how long the rest takes; a context manager.

    The first step compiles: it counts for neither rate nor remaining time. Where the output is no
    terminal (a file, a container's log), `point` prints a line instead of the bar. Of several
    processes the first one does all this.

    Args:
        first: steps done before.
        total: steps in the end.
    """

    def __init__(self, first: int, total: int):
        self._first, self._total = first, total
        self._bar: tqdm | None = None
        self._since: float | None = None
        self._is_shown = distributed.is_first()
        self._is_terminal = sys.stderr.isatty()
        if self._is_shown and first < total:
            tqdm.write("compiling the training step ...", file=sys.stderr)

    def step(self, done: int) -> None:
        """Another step is done."""
        if self._since is None:
            self._since, self._first = time.monotonic(), done
            if self._is_shown and self._is_terminal:
                self._bar = tqdm(total=self._total, initial=done, desc="train", unit="step")
        elif self._bar is not None:
            self._bar.update()

    def point(self, done: int, text: str) -> None:
        """Shows what a step's losses say."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._is_shown:
            print(f"step {done} of {self._total}: {text}{self._left(done)}", flush=True)

    def _left(self, done: int) -> str:
        if self._since is None or done == self._first:
            return ""
        rate = (time.monotonic() - self._since) / (done - self._first)
        return f", {tqdm.format_interval(rate * (self._total - done))} left"

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
