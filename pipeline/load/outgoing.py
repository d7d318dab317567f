"""Write to Pipedrive, several records at once: a refusal affects one record only.

Pipedrive's answer to a write is the complete record afterwards, so it is the read-back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from pipeline.clients.http_transport import Exchange
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from pipeline.errors import ConfigurationError, PipelineError, Retryable
from pipeline.load.writers import Looks, RecordWrite, Sent, Writer


@dataclass(slots=True, kw_only=True)
class WriteResults:
    """sent  what was tried and came to an end, in no particular order
    rest  what was not sent; the first of them is the one that met `stop`
    stop  why nothing more is sent
    """

    sent: list[Sent] = field(default_factory=list)
    rest: list[RecordWrite] = field(default_factory=list)
    stop: Retryable | ConfigurationError | None = None


def send(
    pipedrive: PipedriveClient,
    entity: Entity,
    wanted: Sequence[RecordWrite],
    *,
    at_once: int,
    check: Callable[[], None] = lambda: None,
    last_call: Callable[[], Exchange | None] = lambda: None,
    ends_at: float | None = None,
) -> WriteResults:
    """PATCH or POST every record, `at_once` of them in parallel, until an error that affects all of them.

    check      checks whether the batch is still ours. A Retryable stops the sending; after LostLease the results are unknown
    last_call  returns the last call of the calling thread
    ends_at    a time of `time.monotonic` after which no write starts; the rest stops with "time_is_up"
    """
    done = WriteResults()
    writer = Writer(pipedrive, entity, last_call, Looks(check, ends_at))
    with ThreadPoolExecutor(at_once, thread_name_prefix="write") as pool:
        try:
            outcomes = [pool.submit(copy_context().run, writer.write, one) for one in wanted]
            for one, outcome in zip(wanted, outcomes, strict=True):
                _note(done, one, outcome.result())
        finally:
            writer.is_stopped = True
    return done


def _note(done: WriteResults, one: RecordWrite, outcome: Sent | PipelineError | None) -> None:
    if isinstance(outcome, Sent):
        done.sent.append(outcome)
        if outcome.unsure is not None:
            done.stop = done.stop or outcome.unsure
    elif isinstance(outcome, Retryable | ConfigurationError):
        done.rest.insert(0, one)
        done.stop = outcome
    else:
        done.rest.append(one)


def answers(sending: WriteResults) -> Iterator[dict[str, Any]]:
    """The records as Pipedrive holds them now."""
    return (each.answer for each in sending.sent if each.answer is not None)
