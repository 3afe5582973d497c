"""Work on all cores, in threads: OpenCV, zstd and NumPy work side by side in them."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_AHEAD = 2
"""How many results are in the making or wait to be taken, for each core."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextlib.contextmanager
def computed_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[Iterator[_Result]]:
    """Gives the results in the order of the items, and works on the next ones meanwhile.

    An exception of the function is raised where its result would be. Threads end with the context.
    """
    num_threads = os.cpu_count() or 1
    executor = ThreadPoolExecutor(num_threads)

    def results() -> Iterator[_Result]:
        pending: deque[Future[_Result]] = deque()
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) == num_threads * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    try:
        yield results()
    finally:
        executor.shutdown(cancel_futures=True)
