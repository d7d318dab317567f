"""What is done about failures: replay them, correct a payload first, or discard them. None of it goes beyond what was counted."""

from __future__ import annotations

import json
from typing import Annotated, Any

from flask import Response
from pydantic import BaseModel, Field

from db import replay as rows
from db.failure_filter import FailureFilter
from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight import discarding, payloads, verdicts
from pipeline.insight.replays import progress_of
from pipeline.jobs.replays import start
from pipeline.operations.models import Asked, Counted, OfConnector, OfRow, Shape
from pipeline.operations.values import Text, Value, Why
from pipeline.web.api.failure_shapes import FailuresChosen, VerdictShape
from pipeline.web.api.failures import get_failure
from pipeline.web.api.problems import answer
from pipeline.web.api.replays import ReplayShape
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who

Expected = Annotated[int, Field(ge=1, le=2**31 - 1, description="How many were counted: more are not touched.")]


class NewReplay(Asked):
    failures: FailuresChosen
    count: Expected
    why: Why
    per_second: Annotated[float, Field(ge=start.SLOWEST, le=start.FASTEST)] = start.PER_SECOND


class Discarding(Asked):
    failures: FailuresChosen
    count: Expected
    why: Why


class Edited(Asked):
    payload: dict[str, Any]


class EditedReplay(Edited):
    why: Why


class DifferenceShape(Shape):
    """One place of a payload, as `user.tier` or `segments[0].id`."""

    path: Text
    before: Value
    after: Value
    is_new: bool
    is_gone: bool


class EditAnswer(BaseModel):
    """What an edited payload changes, and what replaying it would come to; nothing was done."""

    differences: list[DifferenceShape]
    verdict: VerdictShape


def add(operations: Operations) -> None:
    base = "/connectors/<connector>"
    operations.post(f"{base}/replays", begin_replay, ReplayShape)
    operations.post(f"{base}/failures/discard", discard_failures, Counted)
    operations.post(f"{base}/failures/<id>/try-payload", try_payload, EditAnswer, needs=Role.OPERATOR, changes=False)
    operations.post(f"{base}/failures/<id>/replay-edited", replay_edited, ReplayShape)


def begin_replay(path: OfConnector, body: NewReplay) -> Response:
    """Begin to replay the open failures of a filter, unless there are more by now than were counted."""
    chosen = body.failures.filter(find(path).key)
    with transaction() as session:
        begun = start.begin(
            session, chosen, by=who().name, why=body.why, per_second=body.per_second, at_most=body.count
        )
        return _told(session, begun)


def discard_failures(path: OfConnector, body: Discarding) -> Response:
    """Take open failures off the list, unless there are more by now than were counted."""
    chosen = body.failures.filter(find(path).key)
    subject = start.words_of(chosen)
    with transaction() as session:
        closed = discarding.discard(session, chosen, by=who().name, why=body.why, at_most=body.count, subject=subject)
    return answer(Counted(done="discarded", count=closed))


def try_payload(path: OfRow, body: Edited) -> Response:
    """Say what an edited payload changes, and what replaying it would come to; nothing is done."""
    connector = find(path)
    with transaction() as session:
        failure = get_failure(session, connector, path.id)
        edited = payloads.read_edited(_text(body), failure)
        changed = payloads.differences(failure, edited)
        verdict = verdicts.verdict_of(session, failure, edited)
    differences = [DifferenceShape.model_validate(each) for each in changed]
    return answer(EditAnswer(differences=differences, verdict=VerdictShape.model_validate(verdict)))


def replay_edited(path: OfRow, body: EditedReplay) -> Response:
    """Replay one failure with an edited payload in the place of the one that came."""
    connector = find(path)
    with transaction() as session:
        edited = payloads.read_edited(_text(body), get_failure(session, connector, path.id))
        one = FailureFilter(connector_key=connector.key, ids=(path.id,))
        begun = start.begin(session, one, by=who().name, why=body.why, payloads={path.id: edited})
        return _told(session, begun)


def _text(body: Edited) -> str:
    return json.dumps(body.payload, ensure_ascii=False)


def _told(session: Any, begun: rows.Replay) -> Response:
    return answer(ReplayShape.model_validate(progress_of(session, [begun])[0]))
