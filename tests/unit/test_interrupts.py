"""A signal ends a program even when Python drops what the signal handler raised."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.local.interrupts import Interrupts

NUMBERS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was raised in a destructor; the handlers of before are put back."""
    found: list[Any] = []
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}  # a shell may have SIGINT ignored
    monkeypatch.setattr(sys, "unraisablehook", lambda given: found.append(given.exc_type))
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


class SignalledAtItsEnd:
    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_destructor_drops_is_raised_again(dropped: list[Any], number: int) -> None:
    interrupts = Interrupts()

    SignalledAtItsEnd(number)

    assert dropped == [KeyboardInterrupt]
    for again in (interrupts.check, interrupts.wait):
        with pytest.raises(KeyboardInterrupt):
            again()


def test_a_signal_ends_what_is_done_at_that_moment() -> None:
    interrupts = Interrupts()

    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


@pytest.mark.parametrize("even_ignored", [False, True])
def test_a_background_job_keeps_ignoring_ctrl_c_unless_it_is_wanted(*, even_ignored: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    Interrupts(even_ignored=even_ignored)

    assert (signal.getsignal(signal.SIGINT) is signal.SIG_IGN) is not even_ignored


def test_a_file_that_can_be_read_ends_the_wait() -> None:
    read, write = os.pipe()
    os.close(write)

    Interrupts().wait([read])

    os.close(read)
