"""A process that compiles kernels for another one and leaves them in the cache.

The other one is :mod:`edgealloc.solvers.compiling.warmup`.

It reads places in the kernel list from standard input and answers each with the same line when it is done. It ends
at once when the other process closes the pipe or dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading

__all__ = ["main"]


def main() -> None:
    """Compile what is asked for until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process, which ends this one
    logging.disable()
    numbers: queue.Queue[int] = queue.Queue()
    threading.Thread(target=_listen, args=(numbers,), daemon=True).start()
    from edgealloc.solvers.compiling.listing import every_entry

    entries = every_entry()
    print("ready", flush=True)
    while True:
        number = numbers.get()
        entry = entries[number]
        with contextlib.suppress(Exception):  # whoever needs it compiles it, and meets the error
            entry.dispatcher().compile(entry.signature)
        print(number, flush=True)


def _listen(numbers: queue.Queue[int]) -> None:
    for line in sys.stdin:
        numbers.put(int(line))
    os._exit(0)
