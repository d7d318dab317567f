"""The token ledger has each call to Pipedrive once, without any code of the caller."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from db import connector as connectors
from db import statement as statement_module
from db import token_ledger
from db.session import engine, transaction
from db.token_ledger import Spent
from pipeline import wiring
from pipeline.domain.budget import Allowance
from pipeline.domain.kinds import Entity
from tests.journeys.pipedrive_records import create_records
from tests.system import SyncSystem


def ledger(system: SyncSystem) -> set[tuple[str, str, int, int]]:
    return {tuple(row) for row in system.rows("SELECT lane, operation, calls, tokens FROM token_ledger")}


def ask(system: SyncSystem, lane: str = "control") -> None:
    """Call Pipedrive without writing to the ledger."""
    with transaction() as session:
        wired = wiring.open_connector(session, system.connector_key, lane=lane)
    wired.pipedrive.me()


def fail_to_commit() -> None:
    with transaction() as session:
        session.execute(text("CREATE TEMP TABLE twice (one int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"))
        session.execute(text("INSERT INTO twice VALUES (1), (1)"))


def another_connector(name: str, **columns: object) -> int:
    with transaction() as session:
        row = connectors.Connector(id=f"id-{name}", name=name, hull_organization="hull.test", **columns)
        session.add(row)
        session.flush()
        return row.key


def company_of(key: int) -> str:
    with transaction() as session:
        return token_ledger.terms(session, key).company


def test_the_ledger_of_a_fetch_equals_what_pipedrive_counted(system: SyncSystem) -> None:
    create_records(system, persons=120, organizations=0)
    system.fetch(Entity.PERSON)
    written = system.rows("SELECT sum(calls) AS calls, sum(tokens) AS tokens FROM token_ledger")[0]
    counted = system.pipedrive.ledger.stats()

    assert (written.calls, written.tokens) == (counted["requests_total"], counted["tokens_total"])


def test_calls_add_up_by_lane_and_operation(system: SyncSystem) -> None:
    for lane in ("control", "control", "verify"):
        ask(system, lane)
    token_ledger.flush_rest()

    assert ledger(system) == {("control", "me", 2, 4), ("verify", "me", 1, 2)}


def test_a_refused_call_is_counted_without_tokens(system: SyncSystem) -> None:
    system.pipedrive.faults.add("/users/me", "429_burst")
    with pytest.raises(Exception, match="rate_limited"):
        ask(system)
    token_ledger.flush_rest()

    assert ledger(system) == {("control", "me", 1, 0)}


def test_a_transaction_that_fails_leaves_the_calls_to_the_next_one(system: SyncSystem) -> None:
    ask(system)
    with pytest.raises(ZeroDivisionError), transaction():
        raise ZeroDivisionError

    assert ledger(system) == set()  # a transaction of its own, which wrote what was owed
    assert ledger(system) == {("control", "me", 1, 2)}


def test_a_commit_that_fails_leaves_the_calls_to_the_next_one(system: SyncSystem) -> None:
    ask(system)
    with pytest.raises(IntegrityError):
        fail_to_commit()
    token_ledger.flush_rest()

    assert ledger(system) == {("control", "me", 1, 2)}


def test_a_removed_connector_does_not_stop_the_others(system: SyncSystem) -> None:
    token_ledger.record_pending(999, "live", "get", 1)
    ask(system)
    token_ledger.flush_rest()

    assert ledger(system) == {("control", "me", 1, 2)}


def test_without_calls_nothing_is_written(system: SyncSystem, statements: list[str]) -> None:
    with transaction():
        pass

    assert [each for each in statements if "token_ledger" in each] == []


@pytest.fixture
def statements(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect each statement that is executed, by SQLAlchemy or as a `Statement`."""
    seen: list[str] = []
    execute = statement_module._execute
    monkeypatch.setattr(
        statement_module, "_execute", lambda session, sql, values: (seen.append(sql), execute(session, sql, values))[1]
    )

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(engine(), "before_cursor_execute", note)
    yield seen
    event.remove(engine(), "before_cursor_execute", note)


def test_a_stage_writes_one_statement_if_it_called_and_none_if_not(system: SyncSystem, statements: list[str]) -> None:
    create_records(system, persons=120, organizations=0)
    system.fetch(Entity.PERSON)
    system.start(Entity.PERSON)
    written = []
    while (due := system.next_batch()) is not None:
        statements.clear()
        system.run_batch_stage(*due)
        written.append((due[2], sum("INTO token_ledger" in each for each in statements)))

    first, *others = [count for stage, count in written if stage == "extract"]
    assert (first, set(others)) == (2, {1})  # the first page's extract reads the field definitions before the page
    assert {count for stage, count in written if stage != "extract"} == {0}


def test_connectors_of_one_company_are_known_by_its_number_or_its_origin(system: SyncSystem) -> None:
    numbered = another_connector("numbered", company_id=77, pipedrive_company="https://acme.pipedrive.com")
    renamed = another_connector("renamed", company_id=77, pipedrive_company="https://acme2.pipedrive.com")
    older = another_connector("older", pipedrive_company="https://acme.pipedrive.com")
    other = another_connector("other", pipedrive_company="https://other.pipedrive.com")

    assert company_of(numbered) == company_of(renamed) == company_of(older)
    assert len({company_of(numbered), company_of(other), company_of(system.connector_key)}) == 3


@pytest.mark.usefixtures("noon")
def test_connectors_of_one_company_share_its_budget(system: SyncSystem) -> None:
    system.change_rows("UPDATE connectors SET company_id = 77")
    ask(system)
    token_ledger.flush_rest()
    other = another_connector("other", company_id=77)
    with transaction() as session:
        company = token_ledger.terms(session, other).company
        assert token_ledger.spent_today(session, company) == token_ledger.read_spent_today(company) == 2
        assert token_ledger.spent_by_lane(session, company) == [Spent("control", "me", 1, 2)]


@pytest.mark.usefixtures("noon")
def test_yesterday_is_not_today(system: SyncSystem) -> None:
    ask(system)
    token_ledger.flush_rest()
    system.change_rows("UPDATE token_ledger SET day = day - 1")
    with transaction() as session:
        company = token_ledger.terms(session, system.connector_key).company
        assert token_ledger.spent_today(session, company) == 0
        assert [(each.calls, each.tokens) for each in token_ledger.last_days(session, company, 7)] == [(1, 2)]
        assert token_ledger.last_days(session, company, 1) == []


def test_the_settings_in_force_set_the_daily_budget(system: SyncSystem) -> None:
    with transaction() as session:
        assert token_ledger.terms(session, system.connector_key).allowance == Allowance()
    system.change_settings(daily_tokens=1_000, live_reserve=0.5)
    with transaction() as session:
        assert token_ledger.terms(session, system.connector_key).allowance == Allowance(1_000, 0.5)


def test_removing_a_connector_deletes_its_ledger(system: SyncSystem) -> None:
    ask(system)
    token_ledger.flush_rest()
    with transaction() as session:
        connectors.remove_rows_of(session, system.connector_key)

    assert ledger(system) == set()
