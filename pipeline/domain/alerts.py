"""Alert rules: facts in, alerts out. No clock, no database; sentences contain numbers and moments,
never values of records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Final

HISTORY_DAYS: Final = 4
"""With fewer days of the same kind, the usual volume is not known."""
QUIET_EVENTS: Final = 50
"""In an hour that usually has fewer events, no events are not unusual."""
SURGE_EVENTS: Final = 500
BUDGET_SHARE: Final = 0.5
"""Spent share of the budget before which no forecast is made: a few calls of the night would cause false alerts."""
WEBHOOK_UNHEALTHY_S: Final = 20 * 60
"""Webhooks are checked every quarter of an hour, and recreated immediately: an older problem does not resolve itself."""
BY_HAND: Final = frozenset({"connector_paused", "not_connected"})
"""Pauses that an operator chose, or that wait for the first setup."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The texts of a rule. `page` is the page of the connector to open."""

    title: str
    meaning: str
    advice: str
    page: str


RULES: Final[Mapping[str, Rule]] = {
    "auth_lost": Rule(
        "Access lost",
        "The connector has paused itself: Pipedrive or Hull refuses it, and a person must fix that. Its work waits.",
        "Open Credentials and authorise again, or fix the reason of the pause; then resume the connector.",
        "credentials",
    ),
    "watermark_late": Rule(
        "Hull is out of date",
        "Changes in Pipedrive reach Hull later than they should: the fetch of changes does not finish.",
        "Check Runs for a stopped run, check Failures, and check that workers run.",
        "runs",
    ),
    "failures": Rule(
        "Many failures",
        "More records failed within an hour than usual; each is stored with its payload.",
        "Open Failures: they are grouped by cause, each with its next step. Replay them once the cause is gone.",
        "failures",
    ),
    "webhook_unhealthy": Rule(
        "No webhooks",
        "Pipedrive sends no webhooks, and recreating them did not help. Fetches bring the changes later.",
        "Open Webhooks: it shows Pipedrive's answer, and has a button to check again.",
        "webhooks",
    ),
    "budget_short": Rule(
        "Daily budget runs out",
        "Pipedrive's tokens of today will be spent before the day is over, or are spent: fetches wait for midnight UTC, live "
        "changes continue until Pipedrive refuses them too.",
        "Find what spends the tokens (pipeline budget CONNECTOR), fetch less often, or raise daily_tokens if the plan has more.",
        "overview",
    ),
    "volume_unusual": Rule(
        "Unusual volume",
        "The last hour brought far fewer or far more changes than the same hour of earlier days.",
        "Fewer: check that webhooks and Hull's notifications arrive. More: check Logs for an import or an update loop.",
        "logs",
    ),
    "silence": Rule(
        "Nothing received",
        "No webhook or notification has arrived for longer than usual.",
        "Check that PUBLIC_URL reaches the web process from outside, then check the webhooks.",
        "webhooks",
    ),
    "work_overdue": Rule(
        "Work is overdue",
        "Work is due, but no worker takes it: no worker is running, or all are busy.",
        "Open Workers: it shows which queue has no worker. Start a worker, or check why the workers are slow.",
        "workers",
    ),
    "no_ticks": Rule(
        "Beat does not run",
        "Nothing starts fetches, recovers lost work or checks these rules: beat or the workers are not running.",
        "Start beat and a worker that listens to control.",
        "workers",
    ),
}
"""Rule → its texts, in the order of the runbook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Thresholds of the rules; 0 switches a rule off."""

    late_minutes: int
    failures_per_hour: int
    silence_minutes: int
    overdue_s: int
    volume_factor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetFacts:
    """How much of the day's budget is spent.

    is_closed  whether Pipedrive refuses calls for today; None if unknown
    share      spent share of the budget, such as 0.8; 0 without limit
    forecast   expected share at the end of the day, at the current pace
    """

    is_closed: bool | None
    share: float
    forecast: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts about one connector. None means unknown, or not applicable.

    late_s, late_bound_s  age of the watermark; its maximum by the schedule
    late_since            the watermark
    unhealthy_webhooks    Person or Organization → seconds since its webhook was last healthy
    silent_s              seconds since the last webhook or notification
    events, usual         of the last full hour; of the same hour on earlier days of the same kind
    """

    paused_by: str | None
    late_s: float | None
    late_bound_s: float
    late_since: datetime | None
    failures: int
    unhealthy_webhooks: Mapping[str, float]
    budget: BudgetFacts | None
    silent_s: float | None
    events: int | None
    usual: Sequence[int]


@dataclass(frozen=True, slots=True)
class AlertCondition:
    """A rule that applies now, with the current figures."""

    rule: str
    sentence: str


def check_connector(facts: Facts, bounds: Bounds) -> list[AlertCondition]:
    """Return what is wrong with a connector. For a paused one that is only the pause: everything else follows from it."""
    if facts.paused_by is not None:
        return list(_access(facts, bounds))
    return [trouble for rule in _RULES_OF_CONNECTORS for trouble in rule(facts, bounds)]


def check_installation(
    due_s: float, tick_age_s: float | None, bounds: Bounds, *, ever_ticked: bool = True
) -> list[AlertCondition]:
    """Return what is wrong with the whole installation.

    due_s       how long the oldest due work has waited
    tick_age_s  since beat's last tick was processed; before the first, since the first connector was added; else None
    """
    found = []
    if bounds.overdue_s and due_s > bounds.overdue_s:
        found.append(AlertCondition("work_overdue", f"The oldest due work has waited for {_span(due_s)}."))
    if bounds.overdue_s and tick_age_s is not None and tick_age_s > bounds.overdue_s:
        words = (
            f"The last tick of beat was processed {_span(tick_age_s)} ago."
            if ever_ticked
            else _never_ticked(tick_age_s)
        )
        found.append(AlertCondition("no_ticks", words))
    return found


def _never_ticked(age_s: float) -> str:
    return f"No tick of beat was ever processed; the first connector was added {_span(age_s)} ago."


def unknown_rules(facts: Facts) -> set[str]:
    """Return the rules that could not be checked: their open alerts stay open."""
    if facts.paused_by is not None:
        return set(RULES) - {"auth_lost"}
    return {"budget_short"} if facts.budget is None or facts.budget.is_closed is None else set()


def _access(facts: Facts, _bounds: Bounds) -> Iterator[AlertCondition]:
    if facts.paused_by is not None and facts.paused_by not in BY_HAND:
        yield AlertCondition("auth_lost", f"Paused automatically: {facts.paused_by}.")


def _late(facts: Facts, bounds: Bounds) -> Iterator[AlertCondition]:
    if not bounds.late_minutes or facts.late_s is None or facts.late_since is None:
        return
    if facts.late_s > max(bounds.late_minutes * 60, facts.late_bound_s):
        since = f"{facts.late_since:%Y-%m-%d %H:%M}"
        yield AlertCondition(
            "watermark_late", f"What changed since {since} UTC, {_span(facts.late_s)} ago, may not be in Hull."
        )


def _failures(facts: Facts, bounds: Bounds) -> Iterator[AlertCondition]:
    if bounds.failures_per_hour and facts.failures >= bounds.failures_per_hour:
        yield AlertCondition("failures", f"{facts.failures:,} failures within the last hour.")


def _webhooks(facts: Facts, _bounds: Bounds) -> Iterator[AlertCondition]:
    unhealthy = {noun: age_s for noun, age_s in facts.unhealthy_webhooks.items() if age_s > WEBHOOK_UNHEALTHY_S}
    if unhealthy:
        nouns = " and ".join(sorted(unhealthy))
        span = _span(max(unhealthy.values()))
        yield AlertCondition("webhook_unhealthy", f"No healthy webhook for {nouns} for {span}.")


def _budget(facts: Facts, _bounds: Bounds) -> Iterator[AlertCondition]:
    day = facts.budget
    if day is None:
        return
    if day.is_closed or day.share >= 1:
        yield AlertCondition("budget_short", "Today's tokens are spent.")
    elif day.share >= BUDGET_SHARE and day.forecast >= 1:
        yield AlertCondition(
            "budget_short", f"{day.share:.0%} of today's tokens are spent; at this pace {day.forecast:.0%} will be."
        )


def _volume(facts: Facts, bounds: Bounds) -> Iterator[AlertCondition]:
    if not bounds.volume_factor or facts.events is None or len(facts.usual) < HISTORY_DAYS:
        return
    usual = median(facts.usual)
    words = f"{facts.events:,} events in the last full hour; usually about {usual:,.0f} in the same hour."
    is_low = usual >= QUIET_EVENTS and facts.events * bounds.volume_factor < min(usual, *facts.usual)
    is_high = facts.events >= SURGE_EVENTS and facts.events > bounds.volume_factor * max(usual, *facts.usual)
    if is_low or is_high:
        yield AlertCondition("volume_unusual", words)


def _silence(facts: Facts, bounds: Bounds) -> Iterator[AlertCondition]:
    if bounds.silence_minutes and facts.silent_s is not None and facts.silent_s > bounds.silence_minutes * 60:
        yield AlertCondition("silence", f"Nothing has been received for {_span(facts.silent_s)}.")


_RULES_OF_CONNECTORS: Final[tuple[Callable[[Facts, Bounds], Iterator[AlertCondition]], ...]] = (
    _late,
    _failures,
    _webhooks,
    _budget,
    _volume,
    _silence,
)


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
