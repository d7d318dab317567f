"""Requeue the records of a batch that could not be sent.

Each one waits separately, as a change with attempts and a due time. After the last attempt it becomes a Failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy.orm import Session

from db import change_writer, joining
from db.batch import ClaimedBatch
from db.change import Change
from pipeline.domain.deletions import MISSING
from pipeline.domain.kinds import Direction
from pipeline.errors import ConfigurationError
from pipeline.load.outgoing import WriteResults
from pipeline.outages import current_work
from pipeline.sync import stage
from pipeline.sync.outgoing import matching
from pipeline.sync.outgoing.event_log import BatchRecorder
from pipeline.sync.stage import MAX_ATTEMPTS, Pause, pause_connector
from pipeline.telemetry import logger

LONGEST_WAIT_S: Final = 240.0
LOOK_AGAIN: Final = Pause(wait_s=3.0, counted=True)
"""Pause after Pipedrive did not have a record, or an answer was lost."""
OTHERS_S: Final = 1.0
"""Pause of the records behind one that fails while others succeed."""


class Requeuer:
    """Puts back the changes of one batch."""

    def __init__(
        self, session: Session, batch: ClaimedBatch, mine: Mapping[str, Change], recorder: BatchRecorder
    ) -> None:
        self._session = session
        self._batch = batch
        self._mine = mine
        self._recorder = recorder

    def postpone_waiting(self, waiting: Mapping[str, matching.Postponement]) -> None:
        for hull_id, wait in waiting.items():
            tried = self._mine[hull_id].attempts if wait.grows and hull_id in self._mine else 1
            wait_s = min(wait.wait_s * 2.0 ** (tried - 1), LONGEST_WAIT_S) if wait.grows else wait.wait_s
            self._again([hull_id], Pause(wait_s=wait_s, counted=wait.counted, waits_for=wait.waits_for), wait.reason)

    def requeue_unsure(self, sending: WriteResults, *, refused_too: bool) -> None:
        """Requeue records that are missing (perhaps merged or deleted), or with a lost answer. Other refusals need a person.

        refused_too  requeue all refused ones, because the next write will differ
        """
        for sent in sending.sent:
            hull_id, pipedrive_id = sent.wanted.hull_id, sent.wanted.pipedrive_id
            if sent.unsure is not None:
                wait = stage.patience(sent.unsure, current_work(), self._attempts_of([hull_id]))
                wait = replace(wait, wait_s=max(wait.wait_s, LOOK_AGAIN.wait_s))
                self._again([hull_id], wait, sent.unsure.reason, detail=sent.unsure.detail)
            elif sent.refused is not None and sent.refused.reason == "gone" and pipedrive_id is not None:
                scope = (self._batch.connector_key, Direction.INCOMING, self._batch.entity)
                change_writer.write_changes(self._session, *scope, [str(pipedrive_id)], cause=MISSING)
                self._again([hull_id], LOOK_AGAIN, "gone", detail=sent.refused.detail)
            elif sent.refused is not None and refused_too:
                self._again([hull_id], LOOK_AGAIN, "refused_by_pipedrive", detail=sent.refused.detail)
            elif sent.refused is not None:
                self._recorder.failed(hull_id, "refused_by_pipedrive", sent.refused.detail, sent.exchange)

    def requeue_rest(self, sending: WriteResults) -> None:
        """Requeue the records that were not sent. Only the first one was tried, so an attempt counts for it alone."""
        stop, rest = sending.stop, [each.hull_id for each in sending.rest]
        not_created = [each.hull_id for each in sending.rest if each.pipedrive_id is None]
        joining.cancel_intents(self._session, self._batch.connector_key, self._batch.entity, not_created)
        if stop is None:
            return
        if isinstance(stop, ConfigurationError):
            change_writer.put_back(self._session, self._batch.id, rest, 0.0, counted=[])
            pause_connector(self._session, self._batch.connector_key, self._batch.direction, stop)
            return
        wait = stage.patience(stop, current_work(), self._attempts_of(rest[:1]))
        tried = rest[:1] if wait.counted else []
        self._again(tried, wait, stop.reason, detail=stop.detail)
        wait_s = min(wait.wait_s, OTHERS_S) if wait.counted else wait.wait_s
        change_writer.put_back(
            self._session, self._batch.id, rest[len(tried) :], wait_s, counted=[], waits_for=wait.waits_for
        )
        logger().warning("outgoing.job.retry", reason=stop.reason, records=len(rest), wait_s=round(wait.wait_s, 1))

    def _attempts_of(self, hull_ids: Iterable[str]) -> int:
        return max((self._mine[each].attempts for each in hull_ids if each in self._mine), default=1)

    def _again(self, hull_ids: Iterable[str], wait: Pause, reason: str, *, detail: str = "") -> None:
        """Put these records back, or make them Failures after their last attempt."""
        back = []
        for hull_id in hull_ids:
            if wait.counted and hull_id in self._mine and self._mine[hull_id].attempts >= MAX_ATTEMPTS:
                self._recorder.failed(hull_id, reason, detail)
            else:
                back.append(hull_id)
        counted = back if wait.counted else []
        change_writer.put_back(
            self._session, self._batch.id, back, wait.wait_s, counted=counted, waits_for=wait.waits_for
        )
