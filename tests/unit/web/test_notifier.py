"""The workers are notified at least once after the last delivery, without delaying the answer."""

from __future__ import annotations

import threading

from pipeline.web.deliveries import Notifier

PATIENCE_S = 10


def test_notify_does_not_wait_for_a_broker_that_hangs() -> None:
    sent, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        sent.set()
        let_go.wait(PATIENCE_S)

    notifier = Notifier(hang, gap_s=0)
    notifier.notify()

    assert sent.wait(PATIENCE_S)
    notifier.notify()  # returns although the first message is still on its way
    let_go.set()


def test_requests_during_a_message_cause_one_more() -> None:
    first, second, go_on = threading.Event(), threading.Event(), threading.Event()
    sent: list[int] = []

    def send() -> None:
        sent.append(1)
        if len(sent) == 1:
            first.set()
            go_on.wait(PATIENCE_S)
        else:
            second.set()

    notifier = Notifier(send, gap_s=0)
    notifier.notify()
    assert first.wait(PATIENCE_S)
    for _ in range(100):
        notifier.notify()
    go_on.set()

    assert second.wait(PATIENCE_S)
    assert len(sent) == 2
