"""What could not be sent is tried again; what was sent stays sent.

Each record waits by itself, as a change with attempts and a due time; the last attempt makes it a Failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy.orm import Session

from db import change as changes
from db import joining
from db.batch import ClaimedBatch
from db.change import Change
from pipeline.domain.departures import MISSING
from pipeline.domain.kinds import Direction
from pipeline.errors import ConfigurationError
from pipeline.load.outgoing import Sending
from pipeline.tasks.sending.matching import Wait
from pipeline.tasks.sending.story import Story
from pipeline.tasks.stage import MAX_ATTEMPTS, UNCOUNTED, backoff_s, pause_connector
from pipeline.telemetry import logger

LONGEST_WAIT_S: Final = 240.0
LOOK_AGAIN_S: Final = 3.0
"""After a record was not there, or an answer was lost: by then the other side has made up its mind."""


class Later:
    """Puts the changes of one batch back."""

    def __init__(self, session: Session, batch: ClaimedBatch, mine: Mapping[str, Change], story: Story) -> None:
        self._session = session
        self._batch = batch
        self._mine = mine
        self._story = story

    def wait_for_turns(self, waiting: Mapping[str, Wait]) -> None:
        for hull_id, wait in waiting.items():
            tried = self._mine[hull_id].attempts if wait.grows and hull_id in self._mine else 1
            wait_s = min(wait.wait_s * 2.0 ** (tried - 1), LONGEST_WAIT_S) if wait.grows else wait.wait_s
            self._again([hull_id], wait_s, wait.reason, counted=wait.counted)

    def look_again(self, sending: Sending, *, refused_too: bool) -> None:
        """Refusals are a person's to look at, but for these: a record that is not there may have been merged or deleted, and
        a lost answer may have been a yes. `refused_too`: what is written will not be the same the next time."""
        for sent in sending.sent:
            hull_id, pipedrive_id = sent.wanted.hull_id, sent.wanted.pipedrive_id
            if sent.unsure is not None:
                self._again([hull_id], LOOK_AGAIN_S, sent.unsure.reason, detail=sent.unsure.detail)
            elif sent.refused is not None and sent.refused.reason == "gone" and pipedrive_id is not None:
                scope = (self._batch.connector_key, Direction.INCOMING, self._batch.entity, str(pipedrive_id))
                changes.fold(self._session, *scope, cause=MISSING)
                self._again([hull_id], LOOK_AGAIN_S, "gone", detail=sent.refused.detail)
            elif sent.refused is not None and refused_too:
                self._again([hull_id], LOOK_AGAIN_S, "refused_by_pipedrive", detail=sent.refused.detail)
            elif sent.refused is not None:
                self._story.gave_up(hull_id, "refused_by_pipedrive", sent.refused.detail, sent.exchange)

    def send_rest(self, sending: Sending) -> None:
        """The first of the rest is the one that was tried. An attempt counts for it alone, so that it does not hold up those
        behind it for ever."""
        stop, rest = sending.stop, [each.hull_id for each in sending.rest]
        unmade = [each.hull_id for each in sending.rest if each.pipedrive_id is None]
        joining.give_up(self._session, self._batch.connector_key, self._batch.entity, unmade)
        if stop is None:
            return
        if isinstance(stop, ConfigurationError):
            changes.put_back(self._session, self._batch.id, rest, 0.0, counted=[])
            pause_connector(self._session, self._batch.connector_key, self._batch.direction, stop)
            return
        tried = [] if stop.reason in UNCOUNTED else rest[:1]
        attempts = max((self._mine[each].attempts for each in tried if each in self._mine), default=1)
        wait_s = stop.retry_after_s if stop.retry_after_s is not None else backoff_s(attempts)
        self._again(tried, wait_s, stop.reason, detail=stop.detail)
        changes.put_back(self._session, self._batch.id, rest[len(tried) :], wait_s, counted=[])
        logger().warning("outgoing.job.retry", reason=stop.reason, records=len(rest), wait_s=round(wait_s, 1))

    def _again(
        self, hull_ids: Iterable[str], wait_s: float, reason: str, *, counted: bool = True, detail: str = ""
    ) -> None:
        """Put these back, or keep them as Failures when that was their last attempt."""
        back = []
        for hull_id in hull_ids:
            if counted and hull_id in self._mine and self._mine[hull_id].attempts >= MAX_ATTEMPTS:
                self._story.gave_up(hull_id, reason, detail)
            else:
                back.append(hull_id)
        changes.put_back(self._session, self._batch.id, back, wait_s, counted=back if counted else [])
