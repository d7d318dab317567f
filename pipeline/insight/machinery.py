"""Workers: the nodes that answer the broker, their queues, and the messages in the queues."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.tasks.app import app

QUEUES = ("live", "bulk", "control")
BEAT = "celerybeat@"
ANSWER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machinery:
    """workers  node → its queues
    waiting  queue → number of messages in it
    """

    broker: str
    workers: dict[str, list[str]]
    beats: list[str]
    waiting: dict[str, int]

    @property
    def unattended(self) -> list[str]:
        """Queues that no worker listens to."""
        heard = {queue for queues in self.workers.values() for queue in queues}
        return [queue for queue in QUEUES if queue not in heard]


def look() -> Machinery:
    """Query the broker; `broker` is `ok`, or the error. Takes twice ANSWER_S, because the number of answers is unknown."""
    try:
        waiting = _waiting()
        names = [name for answer in app.control.ping(timeout=ANSWER_S) or () for name in answer]
        listening = app.control.inspect(timeout=ANSWER_S).active_queues() or {}
    except Exception as error:  # noqa: BLE001 - every transport has errors of its own
        return Machinery(broker=f"does not answer ({type(error).__name__})", workers={}, beats=[], waiting={})
    return Machinery(
        broker="ok",
        workers={
            name: [queue["name"] for queue in listening.get(name, ())] for name in names if not name.startswith(BEAT)
        },
        beats=[name for name in names if name.startswith(BEAT)],
        waiting=waiting,
    )


def anybody_works() -> bool:
    """Whether a worker answers; beat, which answers as well, does not count."""
    return bool(look().workers)


def _waiting() -> dict[str, int]:
    """Messages by queue. A queue that was never used, or is empty, may not be there at all."""
    waiting = dict.fromkeys(QUEUES, 0)
    with app.connection_for_read(connect_timeout=2.0) as connection:
        connection.ensure_connection(max_retries=1, timeout=2.0)
        for queue in QUEUES:
            try:
                waiting[queue] = connection.channel().queue_declare(queue=queue, passive=True).message_count
            except connection.channel_errors:
                continue
    return waiting
