"""The daily budget of a connector's company and its forecast: for people, schedules and the status.

Figures come from the ledger, so they lag behind by the running stage; Redis knows whether Pipedrive refuses calls for today.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from db import id_mapping, schedule, token_ledger
from db import run as run_rows
from db.run import Run
from pipeline import wiring
from pipeline.domain import budget
from pipeline.domain.budget import DAY_S, Allowance, ClosingUnknown, FetchCost, Lane
from pipeline.domain.kinds import Entity
from pipeline.settings import settings

WARN_SHARE = 0.8
"""Share of the day from which the status warns; Pipedrive's own e-mails begin at 75 %."""
_UNPLANNED = frozenset({Lane.LIVE, Lane.CONTROL})
READ_STATES = frozenset({"full", "conflict"})
"""States of records that the next full fetch will list again; whether a shell will be listed is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """One company's daily budget, with one connector's settings.

    closed_s          seconds until Pipedrive is called again, after it refused calls for today
    is_closing_known  False while Redis is unavailable: it is then unknown whether Pipedrive refuses calls
    """

    company: str
    allowance: Allowance
    spent: int
    closed_s: float | None
    now: datetime
    is_closing_known: bool = True

    @property
    def resets_at(self) -> datetime:
        """The next midnight UTC: an assumption, see docs/remote-facts.md."""
        today = self.now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return today + timedelta(days=1)

    @property
    def seconds_left(self) -> float:
        return (self.resets_at - self.now).total_seconds()

    @property
    def left(self) -> int | None:
        """Return the tokens left today; None without a limit."""
        return max(0, self.allowance.daily_tokens - self.spent) if self.allowance.daily_tokens else None

    @property
    def left_for_fetches(self) -> int | None:
        """Tokens that fetches may still spend today; None without limit."""
        ceiling = self.allowance.ceiling(Lane.BULK)
        if ceiling is None:
            return None
        return 0 if self.closed_s is not None else max(0, ceiling - self.spent)

    @property
    def share(self) -> float:
        """How much of the day is spent, as 0.8 for 80 %; 0 without limit."""
        return self.spent / self.allowance.daily_tokens if self.allowance.daily_tokens else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunForecast:
    """When a running fetch will end; `ends_at` has no value until it is known, or if the daily budget is too small."""

    run_id: int
    entity: str
    pages_left: int | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DayForecast:
    """Expected tokens of the rest of the day: of schedules, of running fetches, and of everything else at the current pace."""

    schedules: int
    fetches: int
    others: int

    @property
    def total(self) -> int:
        return self.schedules + self.fetches + self.others


def budget_status(session: Session, connector_key: int) -> BudgetStatus:
    """Return the current state of the daily budget."""
    terms = token_ledger.terms(session, connector_key)
    closed_s, is_known = _closing(session, connector_key)
    return BudgetStatus(
        company=terms.company,
        allowance=terms.allowance,
        spent=token_ledger.spent_today(session, terms.company),
        closed_s=closed_s,
        now=token_ledger.moment(session),
        is_closing_known=is_known,
    )


def _closing(session: Session, connector_key: int) -> tuple[float | None, bool]:
    try:
        return wiring.open_budget(session, connector_key).closed_s(), True
    except ClosingUnknown:
        return None, False


def interval_s(session: Session, connector_key: int, wanted_s: float) -> float:
    """The interval of incremental fetches that the rest of the day can afford, never shorter than the wanted one."""
    day = budget_status(session, connector_key)
    return budget.stretched_interval_s(wanted_s, left=day.left_for_fetches, seconds_left=day.seconds_left)


def cost_of(session: Session, connector_key: int, entity: Entity) -> FetchCost | None:
    """Return the expected cost of a full fetch, by the known records; None before the first one."""
    known = id_mapping.count_known(session, connector_key, entity, READ_STATES)
    return budget.fetch_cost(known, settings().page_limit) if known else None


def pace_of(session: Session, connector_key: int, entity: Entity) -> float:
    """Return the seconds per page of the newest full fetch of this entity."""
    past = [
        run
        for run in run_rows.find_runs(session, connector_key, limit=20)
        if run.kind == "full" and run.entity == entity
    ]
    return _pace(past[0], token_ledger.moment(session)) if past else budget.PAGE_S


def _pace(run: Run, now: datetime) -> float:
    return budget.page_pace_s(((run.finished_at or now) - run.started_at).total_seconds(), run.pages)


def ends_at(day: BudgetStatus, pages: int, page_s: float) -> datetime | None:
    """Return when this number of pages will have been read; None if the daily budget is too small for any."""
    a_day = day.allowance.ceiling(Lane.BULK) or 0
    left = day.left_for_fetches
    wait_s = budget.ends_in_s(pages, page_s, left=left, a_day=a_day, reset_s=day.seconds_left)
    return day.now + timedelta(seconds=wait_s) if wait_s is not None else None


def forecast_runs(session: Session, connector_key: int, day: BudgetStatus) -> list[RunForecast]:
    """Return every running full fetch, and when it will end."""
    found = run_rows.find_runs(session, connector_key, limit=20)
    return [_run_forecast(session, run, day) for run in found if run.state == "running" and run.kind == "full"]


def _run_forecast(session: Session, run: Run, day: BudgetStatus) -> RunForecast:
    frontiers = {part.walk: part.frontier for part in run_rows.slices_of(session, run.id)}
    pages = budget.pages_left(
        frontiers.get("ascending"),
        frontiers.get("descending"),
        settings().page_limit,
        catching_up=run.phase == "catch_up",
    )
    if pages is None and (cost := cost_of(session, run.connector_key, Entity(run.entity))):
        pages = max(1, cost.pages - run.pages)
    ends = ends_at(day, pages, _pace(run, day.now)) if pages is not None else None
    return RunForecast(run_id=run.id, entity=run.entity, pages_left=pages, ends_at=ends)


def day_forecast(session: Session, connector_key: int, day: BudgetStatus, runs: list[RunForecast]) -> DayForecast:
    """Return the expected tokens of the rest of the day. Fetches take no more than they may."""
    intervals = [row.interval_s for row in schedule.schedules_of(session, connector_key) if row.kind == "incremental"]
    schedules = sum(budget.schedule_tokens(interval, day.seconds_left) for interval in intervals if interval)
    fetches = sum(budget.LIST_TOKENS * (run.pages_left or 0) for run in runs)
    if day.left_for_fetches is not None:
        schedules = min(schedules, day.left_for_fetches)
        fetches = min(fetches, day.left_for_fetches - schedules)
    lately = sum(each.tokens for each in token_ledger.spent_by_lane(session, day.company) if each.lane in _UNPLANNED)
    others = budget.rest_of_day(lately, DAY_S - day.seconds_left, day.seconds_left)
    return DayForecast(schedules=schedules, fetches=fetches, others=others)
