"""No statement depends on statistics: it touches nearly the same rows and blocks with them and without them.

A table that is new, was restored, or grows faster than autovacuum works has no statistics. A statement that the planner can
misjudge then reads a whole table for a few ids, or takes time that grows with the square of the records.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, TextClause, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

import db
from db.migrate import migrate
from db.session import make_engine
from db.statement import Statement
from pipeline.settings import Settings
from tests.conftest import WORKER
from tests.integration.statements import explaining, rows
from tests.integration.statements.calls import NOT_EXPLAINED, calls
from tests.integration.statements.explaining import SEEN, Seen

pytestmark = pytest.mark.slow

TIMES = 3
"""The worse plan may take this many times the work of the better one, and `SLACK` more: a pass over one table."""
SLACK = 3_000
MOST_TOUCHED = 4_000_000
"""`send_items` of 100,000 items touches half of this; comparing each record with each other one would touch far more."""
EITHER_WAY = {
    "snapshot.count_snapshots": "counts every snapshot of one side, by an index or by the table",
}
"""Function → why a difference of its plans does no harm."""

Found = dict[tuple[str, int], Seen]


@pytest.fixture(scope="module")
def filled(servers: Settings) -> Iterator[Engine]:
    """A filled database without statistics."""
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    name = f"statements_{WORKER}"
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine = make_engine(make_url(servers.database_url).set(database=name).render_as_string(hide_password=False))
    migrate(engine)
    rows.fill(engine)
    engine.dispose()
    explaining.explain_everything(engine)
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="module")
def both(filled: Engine) -> tuple[Found, Found, dict[str, str]]:
    """What every statement touches, without statistics and with them, and the error of each call that failed."""
    without, errors = _call_everything(filled)
    rows.analyze(filled)
    with_statistics, more = _call_everything(filled)
    return without, with_statistics, errors | more


def _call_everything(engine: Engine) -> tuple[Found, dict[str, str]]:
    found: Found = {}
    errors = {}
    for name, call in calls():
        SEEN.clear()
        with Session(engine, expire_on_commit=False) as session:
            try:
                call(session)
                session.flush()
            except Exception as error:  # noqa: BLE001 - the test lists all of them
                errors[name] = f"{type(error).__name__}: {error}"[:300]
            session.rollback()
        found |= {(name, position): seen for position, seen in enumerate(SEEN)}
    return found, errors


def test_every_function_can_be_called(both: tuple[Found, Found, dict[str, str]]) -> None:
    assert both[2] == {}


def test_every_statement_of_a_module_is_executed(both: tuple[Found, Found, dict[str, str]]) -> None:
    executed = {_plain(seen.sql) for seen in (*both[0].values(), *both[1].values())}
    constants = [(name, sql) for name, sql in _constants() if name not in NOT_EXPLAINED]
    missing = [name for name, sql in constants if not any(_plain(sql) in each for each in executed)]
    assert missing == []


def test_no_statement_touches_much_more_without_statistics(both: tuple[Found, Found, dict[str, str]]) -> None:
    assert _worse(both[0], both[1]) == {}


def test_no_statement_touches_much_more_with_statistics(both: tuple[Found, Found, dict[str, str]]) -> None:
    assert _worse(both[1], both[0]) == {}


def test_no_statement_touches_too_much(both: tuple[Found, Found, dict[str, str]]) -> None:
    """Blocks and rows, not seconds: those depend on the machine and on what else runs there."""
    much = {key: seen.touched for found in both[:2] for key, seen in found.items() if seen.touched > MOST_TOUCHED}
    assert much == {}


def test_a_scrape_reads_no_table_of_ended_work_whole(both: tuple[Found, Found, dict[str, str]]) -> None:
    plans = [seen.plan for found in both[:2] for (name, _), seen in found.items() if name == "figures.all_figures"]
    assert plans
    assert {table for plan in plans for table in _read_whole(plan)} & {
        "deliveries",
        "batches",
        "runs",
        "id_mappings",
    } == set()


def test_a_claim_of_due_changes_reads_only_what_it_claims(both: tuple[Found, Found, dict[str, str]]) -> None:
    """100,000 changes of one connector are due; a batch takes 50."""
    claims = [
        seen
        for found in both[:2]
        for (name, _), seen in found.items()
        if name in ("change_writer.claim_changes with connector_key, entity", "change.due_groups")
    ]
    assert len(claims) == 4
    assert [(seen.rows, seen.blocks) for seen in claims if seen.rows > 600 or seen.blocks > 2_000] == []


def test_a_scrape_counts_neither_failures_nor_events(both: tuple[Found, Found, dict[str, str]]) -> None:
    """20,000 failures are open, and 50,000 rows of counts are kept: a scrape reads sums."""
    plans = [
        seen.plan
        for found in both[:2]
        for (name, _), seen in found.items()
        if name in ("figures.all_figures", "event_count.totals", "failure.count_open")
    ]
    assert len(plans) >= 6
    assert {table for plan in plans for table in _tables(plan)} & {"failures", "event_counts"} == set()


def test_old_failures_are_deleted_without_a_scan_of_all(both: tuple[Found, Found, dict[str, str]]) -> None:
    """100,000 failures are stored, and 20 of them are past their retention."""
    name = "failure_closing.drop_old_failures"
    plans = [seen.plan for found in both[:2] for (called, _), seen in found.items() if called == name]
    assert len(plans) >= 4
    assert {table for plan in plans for table in _read_whole(plan)} & {"failures", "batches", "changes"} == set()


def _tables(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from _tables(child)


def _read_whole(node: dict[str, Any]) -> Iterator[str]:
    if node["Node Type"] == "Seq Scan":
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from _read_whole(child)


def _worse(found: Found, better: Found) -> dict[str, Any]:
    return {
        f"{name} {position}: {_plain(seen.sql)[:200]}": (seen.touched, better[name, position].touched)
        for (name, position), seen in found.items()
        if (name, position) in better
        and name not in EITHER_WAY
        and seen.touched > TIMES * better[name, position].touched + SLACK
    }


def _constants() -> Iterator[tuple[str, str]]:
    for found in pkgutil.iter_modules(db.__path__):
        module = importlib.import_module(f"db.{found.name}")
        for name, value in vars(module).items():
            if isinstance(value, TextClause):
                yield f"{found.name}.{name}", value.text
            elif isinstance(value, Statement):
                yield f"{found.name}.{name}", value._sql


def _plain(sql: str) -> str:
    """Return the statement with its parameters in one spelling."""
    named = re.sub(r"%\((\w+)\)s", r":\1", sql).replace("%%", "%").replace("\\:", ":")
    return " ".join(named.split())
