"""Write to Pipedrive, several records at the same time: a refusal affects one record only.

Pipedrive's answer to a write is the complete record afterwards, so it is the read-back.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipeline.clients.http_transport import Exchange
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from pipeline.domain.records import FieldProblem, fields_without
from pipeline.errors import NOTHING_SENT, ConfigurationError, LostLease, PipelineError, Rejected, Retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordWrite:
    """One record to change, or to create without a `pipedrive_id`, with its fields in the format of API v2."""

    hull_id: str
    pipedrive_id: int | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The outcome of a write: Pipedrive's answer, its refusal, or why it is unknown whether it created the record.

    exchange  the last call for it
    left_out  keys of fields that Pipedrive refused by name, and that the answered call did not have. A change may have no
              fields left: then there is neither an answer nor a refusal
    """

    wanted: RecordWrite
    answer: dict[str, Any] | None = None
    refused: Rejected | None = None
    unsure: Retryable | None = None
    exchange: Exchange | None = None
    left_out: tuple[FieldProblem, ...] = ()


@dataclass(slots=True, kw_only=True)
class WriteResults:
    """The outcomes of all writes.

    sent  writes with an outcome, in no particular order
    rest  records that were not written; the first of them caused `stop`
    stop  why nothing more is written
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

    check      raises if the batch is not ours any more. A Retryable stops the sending; after LostLease the results are unknown
    last_call  returns the last call of the calling thread
    ends_at    a time of `time.monotonic` after which no write starts; the rest stops with "time_limit_reached"
    """
    done = WriteResults()
    writer = Writer(pipedrive, entity, last_call, BatchCheck(check, ends_at))
    with ThreadPoolExecutor(at_once, thread_name_prefix="write") as pool:
        try:
            outcomes = [pool.submit(copy_context().run, writer.write, one) for one in wanted]
            for one, outcome in zip(wanted, outcomes, strict=True):
                _note(done, one, outcome.result())
        finally:
            writer.is_stopped = True
    return done


CHECK_EVERY_S: Final = 1.0
CHECK_EVERY: Final = 32
"""Maximum of writes, within a second, per check of the lease's row. In between, the process knows how long its lease is valid;
the row also shows that a run was cancelled.
"""


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
    """Yield the records as Pipedrive returned them."""
    return (each.answer for each in sending.sent if each.answer is not None)


TRIES: Final = 4
"""Maximum of calls for one record, each without the fields for which the call before was refused."""
NAMES: Final = frozenset({"name", "first_name", "last_name"})
"""A record cannot be created without its name, and the parts of a name are only written together."""


def refused_fields(refused: Rejected, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Find the fields of a write that a 400 names: codes of custom fields first, else keys of the record."""
    if refused.reason != "bad_request":
        return ()
    custom = fields.get("custom_fields") or {}
    named = [code for code in custom if code in refused.detail]
    if not named:
        named = [key for key in fields if key != "custom_fields" and _names(refused.detail, key)]
    if not NAMES.isdisjoint(named):
        named += [key for key in fields if key in NAMES and key not in named]
    return tuple(named)


def _names(detail: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?=[.:\[\]'\"` ]|$)", detail) is not None


class BatchCheck:
    """Checks from time to time whether the batch is still ours; all writers wait for a check."""

    def __init__(self, check: Callable[[], None], ends_at: float | None) -> None:
        self._check = check
        self._ends_at = float("inf") if ends_at is None else ends_at
        self._lock = threading.Lock()
        self._writes_left = 0
        self._check_at = 0.0

    def run(self) -> None:
        """Raises: what `check` raises; Retryable("time_limit_reached")."""
        with self._lock:
            now = time.monotonic()
            if now >= self._ends_at:
                raise Retryable("time_limit_reached", "another task continues with the rest", retry_after_s=0.0)
            if not self._writes_left or now >= self._check_at:
                self._check()
                self._writes_left, self._check_at = CHECK_EVERY, time.monotonic() + CHECK_EVERY_S
            self._writes_left -= 1


class Writer:
    """Writes the records of one batch, until an error that affects all of them."""

    def __init__(
        self,
        pipedrive: PipedriveClient,
        entity: Entity,
        last_call: Callable[[], Exchange | None],
        check: BatchCheck,
    ) -> None:
        self._pipedrive = pipedrive
        self._entity = entity
        self._last_call = last_call
        self._check = check
        self.is_stopped = False

    def write(self, wanted: RecordWrite) -> Sent | PipelineError | None:
        """Write one record. A field that Pipedrive refuses by name is left out, and the rest is tried again."""
        fields, left_out = wanted.fields, dict[str, FieldProblem]()
        for tries_left in reversed(range(TRIES)):
            outcome = self._try(replace(wanted, fields=fields))
            if not isinstance(outcome, Sent):
                return outcome
            outcome = replace(outcome, wanted=wanted, left_out=tuple(left_out.values()))
            named = refused_fields(outcome.refused, fields) if outcome.refused is not None and tries_left else ()
            if not named or (wanted.pipedrive_id is None and not NAMES.isdisjoint(named)):
                return outcome if outcome.refused is None else replace(outcome, left_out=())
            detail = outcome.refused.detail if outcome.refused is not None else ""
            left_out |= {key: FieldProblem(field=key, reason="field_refused", detail=detail) for key in named}
            fields = fields_without(fields, named)
            if not fields and wanted.pipedrive_id is not None:
                return replace(outcome, refused=None, left_out=tuple(left_out.values()))
        return None

    def _try(self, wanted: RecordWrite) -> Sent | PipelineError | None:
        if self.is_stopped:
            return None
        try:
            self._check.run()
        except Retryable as unsafe:
            self.is_stopped = True
            return unsafe
        except BaseException:
            self.is_stopped = True
            raise
        return self._write(wanted)

    def _write(self, wanted: RecordWrite) -> Sent | PipelineError | None:
        try:
            answer = self._send(wanted)
            return Sent(wanted=wanted, answer=answer, exchange=self._last_call())
        except Rejected as refused:
            return Sent(wanted=wanted, refused=refused, exchange=self._last_call())
        except Retryable as unwell:
            self.is_stopped = True
            if wanted.pipedrive_id is None and unwell.reason not in NOTHING_SENT:
                return Sent(wanted=wanted, unsure=unwell)
            return unwell
        except ConfigurationError as missing:
            self.is_stopped = True
            return missing
        except LostLease:
            self.is_stopped = True
            raise

    def _send(self, wanted: RecordWrite) -> dict[str, Any]:
        if wanted.pipedrive_id is None:
            return self._pipedrive.create(self._entity, wanted.fields)
        return self._pipedrive.update(self._entity, wanted.pipedrive_id, wanted.fields)
