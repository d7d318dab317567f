"""SIGTERM and Ctrl-C end a program that runs others, at any moment."""

from __future__ import annotations

import select
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Final

POLL_S: Final = 0.5


class Interrupts:
    """Raises KeyboardInterrupt on SIGTERM and SIGINT, and once more at the next `check` or `wait`.

    The second one is needed because Python drops an exception that a signal handler raises in a destructor or in a callback
    of C code.

    even_ignored  whether SIGINT counts in a background job, where the shell ignores it
    """

    def __init__(self, *, even_ignored: bool = False) -> None:
        self._has_come = False
        for number in (signal.SIGTERM, signal.SIGINT):
            if number == signal.SIGTERM or even_ignored or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._has_come:
            raise KeyboardInterrupt

    def wait(self, watched: Sequence[int] = ()) -> None:
        """Return when one of these files can be read. Raises KeyboardInterrupt when a signal comes, or has come."""
        self.check()
        while not select.select(watched, [], [], POLL_S)[0]:
            self.check()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._has_come = True  # no lock: the handler runs between any two steps of this thread
        raise KeyboardInterrupt
