"""A Ctrl-C that cannot be lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. If that is a ``__del__``, or
a callback of the garbage collector or of C, the exception is printed and forgotten, and the work
goes on. Of a thousand interrupts of a Dask run seven were lost so, in the ``__del__`` of
distributed's futures, which writes to a socket.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_asked = threading.Event()


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Note every Ctrl-C besides raising it, for ``heed``; a lost one prints nothing.

    Does nothing outside the main thread, or where somebody else handles Ctrl-C.
    """
    before, unraisable = signal.getsignal(signal.SIGINT), sys.unraisablehook
    if (
        before is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def note(number: int, frame: Any) -> None:
        _asked.set()
        signal.default_int_handler(number, frame)

    def lost(what: Any) -> None:
        if what.exc_type is not KeyboardInterrupt:
            unraisable(what)

    signal.signal(signal.SIGINT, note)
    sys.unraisablehook = lost
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = unraisable
        _asked.clear()


def heed() -> None:
    """What every loop over blocks calls in each turn.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C, and its exception was lost.
    """
    if _asked.is_set():
        raise KeyboardInterrupt
