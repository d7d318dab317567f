"""`/`: one page for people, rendered here and complete without JavaScript: the connectors, how they are, their last runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from flask import Blueprint, render_template
from sqlalchemy.orm import Session

from db import connector as connectors
from db import failure as failures
from db import run as runs
from db.connector import Connector
from db.run import Run
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.settings import Settings, settings
from pipeline.tasks.status import Status, status_of

RUNS_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A run as the table shows it."""

    id: int
    what: str
    state: str
    started: str
    took: str
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A connector as the page shows it."""

    name: str
    id: str
    organization: str
    company: str
    state: str
    status: Status
    failures: int
    rows: list[Row]


def room() -> Blueprint:
    """The page; its template and style sheet are the app's own."""
    routes = Blueprint("overview", __name__)
    routes.add_url_rule("/", view_func=show)
    return routes


def show() -> str:
    """Answer first: one sentence, then each connector."""
    now = datetime.now(UTC)
    with transaction() as session:
        cards = [_card(session, connector, now) for connector in connectors.all_connectors(session)]
    return render_template(
        "overview.html", cards=cards, sentence=_sentence(cards), now=f"{now:%H:%M:%S} UTC", flower=_flower(settings())
    )


def _card(session: Session, connector: Connector, now: datetime) -> Card:
    return Card(
        name=connector.name,
        id=connector.id,
        organization=connector.hull_organization,
        company=urlsplit(connector.pipedrive_company or "").netloc or "not known yet",
        state=connector.state,
        status=status_of(session, connector),
        failures=sum(failures.count_open(session, connector.key).values()),
        rows=[_row(run, now) for run in runs.latest_runs(session, connector.key, RUNS_SHOWN)],
    )


def _row(run: Run, now: datetime) -> Row:
    took_s = ((run.finished_at or now) - run.started_at).total_seconds()
    return Row(
        id=run.id,
        what=f"{run.kind} fetch of {Entity(run.entity).plural.capitalize()}",
        state=run.state,
        started=f"{run.started_at:%Y-%m-%d %H:%M:%S}",
        took=f"{took_s:.1f} s" if took_s < 120 else f"{took_s / 60:.0f} min",
        run=run,
    )


def _sentence(cards: list[Card]) -> str:
    if not cards:
        return "No connector yet. Add one with: pipeline connectors add"
    unwell = [card.name for card in cards if card.status.status != "ok"]
    if not unwell:
        return "All connectors are in order." if len(cards) > 1 else f"{cards[0].name} is in order."
    return f"{', '.join(unwell)}: please read on."


def _flower(environment: Settings) -> str:
    """Flower listens on its own port of this host."""
    host = urlsplit(environment.public_url).hostname or "localhost"
    return f"http://{host}:{environment.flower_port}/"
