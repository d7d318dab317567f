"""Failures: by cause, one by one, one whole, and what replaying them would come to."""

from __future__ import annotations

from typing import Annotated, Literal

from flask import Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import failure_filter
from db.connector import Connector
from db.failure import Failure
from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight import failures as insight
from pipeline.insight import verdicts
from pipeline.operations.errors import not_found
from pipeline.operations.models import OfConnector, OfRow, Shape
from pipeline.operations.values import RowId
from pipeline.web.api.failure_shapes import FailuresChosen, FailureShape, GroupShape, VerdictShape, WholeAnswer
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who


class FailuresAsked(FailuresChosen):
    state: Literal["open", "replayed", "discarded", "all"] = "open"
    before: RowId | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50

    @property
    def chosen_state(self) -> str | None:
        return None if self.state == "all" else self.state


class GroupsAsked(FailuresChosen):
    state: Literal["open", "replayed", "discarded", "all"] = "open"


class GroupsAnswer(BaseModel):
    groups: list[GroupShape]


class JudgedShape(BaseModel):
    """A failure, and what replaying it now would come to."""

    failure: FailureShape
    verdict: VerdictShape


class FailuresAnswer(BaseModel):
    failures: list[JudgedShape]


class SumAnswer(Shape):
    """What replaying a selection would come to: `kinds` counts the verdicts of the `looked` at, the newest of all `total`."""

    total: int
    looked: int
    is_sample: bool
    harmless: int
    kinds: dict[str, int]
    tokens: int


def add(operations: Operations) -> None:
    base = "/connectors/<connector>/failures"
    operations.get(base, list_failures, FailuresAnswer)
    operations.get(f"{base}/groups", list_groups, GroupsAnswer)
    operations.get(f"{base}/verdict", foresee_replay, SumAnswer)
    operations.get(f"{base}/<id>", show_failure, WholeAnswer)


def list_failures(path: OfConnector, query: FailuresAsked) -> Response:
    """List failures by filter, newest first, each with what replaying it would come to."""
    connector = find(path)
    chosen = query.filter(connector.key, query.chosen_state)
    with transaction() as session:
        found = failure_filter.page_of_failures(session, chosen, before_id=query.before, limit=query.limit)
        each_verdict = verdicts.verdicts_of(session, found)
    return answer(
        FailuresAnswer(
            failures=[
                JudgedShape(
                    failure=FailureShape.model_validate(each),
                    verdict=VerdictShape.model_validate(each_verdict[each.id]),
                )
                for each in found
            ]
        )
    )


def list_groups(path: OfConnector, query: GroupsAsked) -> Response:
    """List what failed by cause, those first that hold most."""
    connector = find(path)
    chosen = query.filter(connector.key, None if query.state == "all" else query.state)
    with transaction() as session:
        found = insight.groups_of(session, chosen)
    return answer(GroupsAnswer(groups=[GroupShape.model_validate(each) for each in found]))


def foresee_replay(path: OfConnector, query: FailuresChosen) -> Response:
    """Count the open failures of a filter, and say what replaying them would come to; nothing is done."""
    connector = find(path)
    with transaction() as session:
        return answer(SumAnswer.model_validate(verdicts.sum_of(session, query.filter(connector.key))))


def show_failure(path: OfRow) -> Response:
    """Show one failure whole, with its verdict of this moment; its payload and HTTP exchange for operators and admins only."""
    connector = find(path)
    with transaction() as session:
        whole = insight.whole(session, get_failure(session, connector, path.id))
        reads = Role(who().role).may(Role.OPERATOR)
        told = {name: getattr(whole, name) for name in WholeAnswer.model_fields if hasattr(whole, name)}
        more = {"traceback": whole.failure.traceback, "exchange": whole.failure.exchange if reads else None}
        if not reads:
            told["payload"] = None
        return answer(WholeAnswer.model_validate(told | more, from_attributes=True))


def get_failure(session: Session, connector: Connector, failure_id: int) -> Failure:
    """The connector's failure of that number. Raises: OperationError."""
    found = insight.find_failure(session, connector.key, failure_id)
    if found is None:
        raise not_found("There is no such failure of this connector.")
    return found
