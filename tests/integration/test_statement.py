"""Fast statements pass values unchanged, and raise the errors of SQLAlchemy."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from db.session import transaction
from db.statement import Statement
from pipeline.error_kinds import classify
from tests.system import SyncSystem


def test_casts_percent_signs_and_values_are_kept(database: str) -> None:
    like = Statement("SELECT :text::text, 'a%' LIKE 'a%', :number % 3")

    with transaction() as session:
        assert like.row(session, {"text": "100 % :text", "number": 8}) == ("100 % :text", True, 2)


def test_no_row_is_none(database: str) -> None:
    with transaction() as session:
        assert Statement("SELECT 1 WHERE :no").row(session, {"no": False}) is None


def test_an_error_is_one_of_sqlalchemy(system: SyncSystem) -> None:
    twice = Statement(
        "INSERT INTO connectors (id, name, hull_organization) SELECT :id, n, n FROM generate_series(1, 2) n"
    )

    with pytest.raises(IntegrityError), transaction() as session:
        twice.run(session, {"id": "one"})


def test_a_lost_connection_is_a_temporary_error_and_is_not_used_again(database: str) -> None:
    with pytest.raises(OperationalError) as lost, transaction() as session:
        Statement("SELECT pg_terminate_backend(pg_backend_pid(), :wait_ms)").run(session, {"wait_ms": 0})

    assert classify(lost.value).reason == "database_unavailable"
    with transaction() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.parametrize("by_statement", [True, False])
def test_a_connection_to_a_demoted_server_is_not_used_again(system: SyncSystem, by_statement: bool) -> None:
    write = "UPDATE connectors SET name = 'x' WHERE false"

    def fail() -> None:
        with transaction() as session:
            session.connection().connection.dbapi_connection.set_session(readonly=True)  # type: ignore[union-attr]  # psycopg2's
            if by_statement:
                Statement(write).run(session, {})
            else:
                session.execute(text(write))

    with pytest.raises(DBAPIError) as refused:
        fail()

    assert classify(refused.value).reason == "database_unavailable"
    with transaction() as session:
        session.execute(text(write))
