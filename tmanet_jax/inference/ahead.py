"""An iterator that runs in a thread of its own, a few items ahead of who reads it."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class _End(NamedTuple):
    """Nothing more comes."""

    error: BaseException | None


def ahead(items: Iterator[Item], depth: int) -> Generator[Item, None, None]:
    """The items of an iterator, up to `depth` of them made before they are asked for.

    An exception of the iterator is raised here, after the items before it. Closing this generator
    (or dropping it) ends the thread, which closes the iterator if that can be closed.
    """
    ready: queue.Queue[Item | _End] = queue.Queue(depth)
    is_closed = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, ready, is_closed), daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        is_closed.set()
        while thread.is_alive():
            _empty(ready)
            thread.join(0.01)


def _fill(
    items: Iterator[Item], ready: "queue.Queue[Item | _End]", is_closed: threading.Event
) -> None:
    error = None
    try:
        for item in items:
            ready.put(item)
            if is_closed.is_set():
                break
    except BaseException as raised:
        error = raised
    try:
        if close := getattr(items, "close", None):
            close()
    except BaseException as raised:
        error = error or raised
    ready.put(_End(error))


def _empty(ready: "queue.Queue[Item | _End]") -> None:
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        pass
