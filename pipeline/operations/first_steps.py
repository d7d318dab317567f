"""The steps of a connector's set-up: which are done, which is next, and the cost of the first fetch."""

from __future__ import annotations

import os
from typing import Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import connector as connectors
from db import run as run_rows
from db.authorisation import connection_of
from db.connector import Connector
from db.run import Run
from db.session import transaction
from pipeline.domain.budget import LIST_TOKENS
from pipeline.domain.kinds import Entity, Role
from pipeline.domain.settings import DEFAULT_ORGANIZATION_DOMAIN
from pipeline.operations.call import Call
from pipeline.operations.fields import Fields
from pipeline.operations.models import ConnectorRequest, Shape
from pipeline.operations.registry import operation
from pipeline.settings import SANDBOX_FILE, settings
from pipeline.sync.runs import spending

STEPS: Final = ("hull", "pipedrive", "identity", "mappings", "segments", "first-fetch")
"""In the order of the set-up."""


class ExpectedShape(Shape):
    """Cost of the last full fetches; null before the first. `left_today` is null if there is no limit."""

    page_limit: int
    tokens_known: int | None
    seconds_known: float | None
    left_today: int | None


class StepsAnswer(BaseModel):
    """`following` is the next step of `steps` to take; null when all are `done`."""

    steps: list[str]
    done: list[str]
    following: str | None
    first_fetch: ExpectedShape


@operation("GET /connectors/<connector>/first-steps", role=Role.VIEWER, command="connectors steps CONNECTOR")
def show_steps(call: Call, _request: ConnectorRequest) -> StepsAnswer:
    """Show which steps of a connector's set-up are done, and which is next."""
    with transaction() as session:
        return describe_steps(session, call.connector)


def describe_steps(session: Session, connector: Connector) -> StepsAnswer:
    """Return the steps. A step is done when its decision was made: in the console, in Hull, or on the command line."""
    document = connectors.settings_in_force(session, connector.key).document
    is_mapped = any(document.get(f"incoming_{entity.hull}_attributes") for entity in Entity)
    is_done = {
        "hull": True,
        "pipedrive": connection_of(session, connector).how is not None,
        "identity": is_mapped or "account_claims" in document,
        "mappings": is_mapped,
        "segments": any(f"synchronized_{entity.hull}_segments" in document for entity in Entity),
        "first-fetch": bool(full_runs(session, connector.key)),
    }
    return StepsAnswer(
        steps=list(STEPS),
        done=[step for step in STEPS if is_done[step]],
        following=next((step for step in STEPS if not is_done[step]), None),
        first_fetch=expected_fetch(session, connector.key),
    )


def full_runs(session: Session, connector_key: int) -> list[Run]:
    """Return the newest full fetch of each entity."""
    newest = (run_rows.latest_full_run(session, connector_key, entity) for entity in Entity)
    return [run for run in newest if run is not None]


def expected_fetch(session: Session, connector_key: int) -> ExpectedShape:
    """Return the cost of the last full fetches as the estimate for the next: to count millions would be too slow for a page."""
    last = [run_rows.latest_full_run(session, connector_key, entity, state="done") for entity in Entity]
    known = [run for run in last if run is not None]
    took = [(run.finished_at - run.started_at).total_seconds() for run in known if run.finished_at]
    return ExpectedShape(
        page_limit=settings().page_limit,
        tokens_known=sum(run.pages for run in known) * LIST_TOKENS if known else None,
        seconds_known=max(took) if took else None,
        left_today=spending.budget_status(session, connector_key).left_for_fetches,
    )


def needs_domain_field(fields: Fields) -> bool:
    """Return whether this company lacks the field that holds the domain by default."""
    return fields.read_at is not None and all(each.code != DEFAULT_ORGANIZATION_DOMAIN for each in fields.choices)


def sandbox_file() -> str:
    """Return the file with the credentials of this machine's sandbox, or an empty text."""
    chosen = settings()
    path = chosen.data_dir / SANDBOX_FILE
    return str(path) if chosen.pipedrive_api_url and os.access(path, os.R_OK) else ""
