"""The way from nothing to the first record: which steps a new connector has behind it, and what the first fetch takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from db import audit
from db import connector as connectors
from db import run as run_rows
from db.authorisation import connection_of
from db.connector import Connector
from db.run import Run
from pipeline.domain.budget import LIST_TOKENS
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import DEFAULT_ORGANIZATION_DOMAIN
from pipeline.insight.fields import Fields
from pipeline.settings import SANDBOX_FILE, settings
from pipeline.sync.runs import runs, spending

STEPS: Final = ("hull", "pipedrive", "identity", "mappings", "segments", "first-fetch")
"""In the order in which they are walked."""
CAUSE: Final = "first_fetch"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupProgress:
    """`done` are the steps behind one, `following` the next to take; None when all are done."""

    done: frozenset[str]
    following: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFetch:
    """The cost of a first fetch: the number of records is not known, so for `page_limit` of them.

    tokens_known  of the last completed full fetches; None before the first one
    left_today    tokens that fetches may still spend today; None without limit
    """

    page_limit: int
    tokens_known: int | None
    seconds_known: float | None
    left_today: int | None


def progress_of(session: Session, connector: Connector) -> SetupProgress:
    """A step is done when its decision was made, here, in Hull, or on the command line."""
    document = connectors.settings_in_force(session, connector.key).document
    mapped = any(document.get(f"incoming_{entity.hull}_attributes") for entity in Entity)
    done = {"hull"}
    if connection_of(session, connector).how is not None:
        done.add("pipedrive")
    if mapped or "account_claims" in document:
        done.add("identity")
    if mapped:
        done.add("mappings")
    if any(f"synchronized_{entity.hull}_segments" in document for entity in Entity):
        done.add("segments")
    if full_runs(session, connector.key):
        done.add("first-fetch")
    following = next((step for step in STEPS if step not in done), None)
    return SetupProgress(done=frozenset(done), following=following)


def full_runs(session: Session, connector_key: int) -> list[Run]:
    """The newest full fetch of each entity."""
    newest = (run_rows.latest_full_run(session, connector_key, entity) for entity in Entity)
    return [run for run in newest if run is not None]


def start_fetches(connector: Connector, entities: Sequence[Entity], *, by: str) -> list[int]:
    """Start a full fetch of each entity, Organizations first so that Users find their Accounts; use one that is
    already in flight."""

    def note(session: Session, run: Run) -> None:
        audit.note(session, by, "fetch.start", f"run {run.id}", connector_key=connector.key, why="first fetch")

    started = []
    for entity in sorted(entities):
        try:
            started.append(runs.start_run(connector.key, entity, cause=CAUSE, also=note))
        except runs.RunInProgress as under_way:
            started.append(under_way.run_id)
    return started


def expected(session: Session, connector_key: int) -> ExpectedFetch:
    """What is known of the cost before it begins: what the last one took. Counting millions would take longer than a page may."""
    last = [run_rows.latest_full_run(session, connector_key, entity, state="done") for entity in Entity]
    known = [run for run in last if run is not None]
    took = [(run.finished_at - run.started_at).total_seconds() for run in known if run.finished_at]
    return ExpectedFetch(
        page_limit=settings().page_limit,
        tokens_known=sum(run.pages for run in known) * LIST_TOKENS if known else None,
        seconds_known=max(took) if took else None,
        left_today=spending.budget_status(session, connector_key).left_for_fetches,
    )


def needs_domain_field(fields: Fields) -> bool:
    """Whether the field that holds the domain by default is one this company does not have."""
    return fields.read_at is not None and all(each.code != DEFAULT_ORGANIZATION_DOMAIN for each in fields.choices)


def sandbox_file() -> str:
    """Return the file with the credentials of this machine's sandbox; empty if there is none."""
    chosen = settings()
    path = chosen.data_dir / SANDBOX_FILE
    return str(path) if chosen.pipedrive_api_url and os.access(path, os.R_OK) else ""
