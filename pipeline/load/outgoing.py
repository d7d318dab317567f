"""Writes to Pipedrive, several records at once: a refusal is that record's own, and its neighbours go on.

Pipedrive's answer to a write is the whole record as it stands then, so it is the read-back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pipeline.clients.pipedrive import PipedriveClient
from pipeline.clients.wire import Exchange as Exchange  # noqa: PLC0414 - for `tasks`
from pipeline.domain.kinds import Entity
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable

NOTHING_SENT: Final = frozenset({"remote_unreachable", "rate_limited", "daily_budget_spent", "redis_unavailable"})
"""Reasons of a Retryable after which Pipedrive has certainly not made the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One record to be changed, or made where `pipedrive_id` is None: the fields to write, in the shapes of API v2."""

    hull_id: str
    pipedrive_id: int | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of it: Pipedrive's answer, or why it was refused, or what left it open whether Pipedrive made the record.

    exchange  the call that was made for it
    """

    wanted: Wanted
    answer: dict[str, Any] | None = None
    refused: Rejected | None = None
    unsure: Retryable | None = None
    exchange: Exchange | None = None


@dataclass(slots=True, kw_only=True)
class Sending:
    """sent  what was tried and came to an end, in no particular order
    rest  what was not sent; the first of them is the one that met `stop`
    stop  why nothing more is sent
    """

    sent: list[Sent] = field(default_factory=list)
    rest: list[Wanted] = field(default_factory=list)
    stop: Retryable | ConfigurationError | None = None


def send(
    pipedrive: PipedriveClient,
    entity: Entity,
    wanted: Sequence[Wanted],
    *,
    at_once: int,
    check: Callable[[], None] = lambda: None,
    last_call: Callable[[], Exchange | None] = lambda: None,
) -> Sending:
    """PATCH or POST every record, `at_once` of them side by side, until one meets something that all would meet.

    check      is called between handfuls; what it raises ends the sending, and nobody knows of what was sent before
    last_call  tells of the last call that the thread which asks has made
    """
    done = Sending()
    size = at_once * 8
    handfuls = [wanted[at : at + size] for at in range(0, len(wanted), size)]
    writer = partial(_Writer, pipedrive, entity, last_call)
    with ThreadPoolExecutor(at_once, thread_name_prefix="write") as pool:
        for number, handful in enumerate(handfuls):
            check()
            for one, outcome in zip(handful, pool.map(writer().write, handful), strict=True):
                _note(done, one, outcome)
            if done.stop is not None:
                done.rest.extend(one for later in handfuls[number + 1 :] for one in later)
                break
    return done


def _note(done: Sending, one: Wanted, outcome: Sent | PipelineError | None) -> None:
    if isinstance(outcome, Sent):
        done.sent.append(outcome)
        if outcome.unsure is not None:
            done.stop = done.stop or outcome.unsure
    elif isinstance(outcome, Retryable | ConfigurationError):
        done.rest.insert(0, one)
        done.stop = outcome
    else:
        done.rest.append(one)


class _Writer:
    """Writes records of one handful; once one has met a trouble that is not its own, the others are left alone."""

    def __init__(self, pipedrive: PipedriveClient, entity: Entity, last_call: Callable[[], Exchange | None]) -> None:
        self._pipedrive = pipedrive
        self._entity = entity
        self._last_call = last_call
        self._stopped = False

    def write(self, wanted: Wanted) -> Sent | PipelineError | None:
        if self._stopped:
            return None
        try:
            answer = self._send(wanted)
            return Sent(wanted=wanted, answer=answer, exchange=self._last_call())
        except Rejected as refused:
            return Sent(wanted=wanted, refused=refused, exchange=self._last_call())
        except Retryable as unwell:
            self._stopped = True
            if wanted.pipedrive_id is None and unwell.reason not in NOTHING_SENT:
                return Sent(wanted=wanted, unsure=unwell)
            return unwell
        except ConfigurationError as missing:
            self._stopped = True
            return missing

    def _send(self, wanted: Wanted) -> dict[str, Any]:
        if wanted.pipedrive_id is None:
            return self._pipedrive.create(self._entity, wanted.fields)
        return self._pipedrive.update(self._entity, wanted.pipedrive_id, wanted.fields)


def answers(sending: Sending) -> Iterator[dict[str, Any]]:
    """The records as Pipedrive holds them now."""
    return (each.answer for each in sending.sent if each.answer is not None)
