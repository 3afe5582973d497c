"""What every worker process does at its start."""

import multiprocessing
import os
import threading

import cv2


def begin_worker() -> None:
    """Leaves the cores to the other workers, and ends this one when its parent ends.

    A parent that is killed ends nothing: its workers would wait for work for ever.
    """
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
