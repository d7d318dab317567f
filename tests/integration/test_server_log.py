"""No value of a record reaches PostgreSQL's own log, nor ours, when a statement fails."""

from __future__ import annotations

import io
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.session import QUIET, QUIET_FOR_ANYBODY, loud_settings, make_engine, transaction
from db.statement import Statement
from pipeline.error_kinds import classify
from pipeline.settings import Settings
from tests.logs import captured_log

MARKER = "canary.lovelace@example.com"
ROLE = "ordinary"


def broken_constraint(session: Session) -> None:
    session.execute(text("CREATE TEMPORARY TABLE seen (email text PRIMARY KEY, CHECK (email <> 'x'))"))
    for _ in range(2):
        session.execute(text("INSERT INTO seen VALUES (:email)"), {"email": MARKER})


def broken_check(session: Session) -> None:
    session.execute(text("CREATE TEMPORARY TABLE checked (email text CHECK (email NOT LIKE 'canary%'))"))
    session.execute(text("INSERT INTO checked VALUES (:email)"), {"email": MARKER})


def wrong_type(session: Session) -> None:
    session.execute(text("SELECT CAST(:email AS integer)"), {"email": MARKER})


def wrong_json(session: Session) -> None:
    session.execute(text("SELECT CAST(:body AS jsonb)"), {"body": f'{{"email": "{MARKER}" oops'})


def on_the_hot_path(session: Session) -> None:
    Statement("SELECT CAST(:email AS integer)").rows(session, {"email": MARKER})


def cut_off(session: Session) -> None:
    session.execute(text("SET LOCAL statement_timeout = 5"))
    session.execute(text("SELECT pg_sleep(1), CAST(:email AS text)"), {"email": MARKER})


def copied(session: Session) -> None:
    session.execute(text("CREATE TEMPORARY TABLE numbers (n integer)"))
    session.connection().connection.cursor().copy_expert("COPY numbers FROM STDIN", io.StringIO(f"{MARKER}\n"))


def warned(session: Session) -> None:
    session.execute(text("DO $$ BEGIN RAISE WARNING '%', current_setting('a.b', true); END $$"))
    session.execute(text(f'SELECT no_such_column AS "{MARKER}"'))


FAILING: list[Callable[[Session], None]] = [
    broken_constraint, broken_check, wrong_type, wrong_json, on_the_hot_path, cut_off, copied, warned,
]  # fmt: skip


class Log:
    """What the server has written since."""

    def __init__(self, path: Path) -> None:
        self._path, self._from = path, path.stat().st_size

    def text(self) -> str:
        with self._path.open("rb") as file:
            file.seek(self._from)
            return file.read().decode("utf-8", "replace")


@pytest.fixture
def log() -> Log:
    if "TEST_DATABASE_URL" in os.environ:
        pytest.skip("the log of a server of one's own is somewhere else")
    return Log(Path(os.environ["DATA_DIR"]) / "log" / "postgres.log")


@pytest.fixture
def loud_database(database: str, servers: Settings) -> Iterator[str]:
    """Return a database on a server that logs more than ours, like other servers do."""
    name = make_url(database).database
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    loud = {
        "log_min_messages": "warning",
        "log_min_error_statement": "error",
        "log_error_verbosity": "verbose",
        "log_statement": "all",
        "log_min_duration_statement": "0",
        "log_parameter_max_length": "-1",
        "log_parameter_max_length_on_error": "-1",
    }
    with admin.connect() as connection:
        for setting, value in loud.items():
            connection.execute(text(f"ALTER DATABASE {name} SET {setting} = '{value}'"))
    yield database
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} RESET ALL"))
        connection.execute(text(f"DROP OWNED BY {ROLE}") if _has_role(connection) else text("SELECT 1"))
        connection.execute(text(f"DROP ROLE IF EXISTS {ROLE}"))
    admin.dispose()


def _has_role(connection: object) -> bool:
    return bool(connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :r"), {"r": ROLE}).scalar())  # type: ignore[attr-defined]


@pytest.mark.parametrize("fail", FAILING, ids=lambda fail: fail.__name__)
def test_a_statement_that_fails_leaves_no_value_behind(
    loud_database: str, log: Log, fail: Callable[[Session], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    engine, printed = make_engine(loud_database), io.StringIO()
    with redirect_stderr(printed), captured_log("debug") as lines, Session(engine) as session:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's, or SQLAlchemy's
            fail(session)
        cause = classify(caught.value)
    engine.dispose()

    places = {
        "PostgreSQL's log": log.text(),
        "ours": str(lines) + printed.getvalue() + caplog.text,
        "what is kept": str(cause),
    }
    assert [place for place, words in places.items() if MARKER in words] == []


def test_without_our_settings_the_server_would_write_the_value(loud_database: str, log: Log) -> None:
    """The negative control: a connection that is not ours."""
    other = create_engine(loud_database)
    with pytest.raises(DBAPIError), other.connect() as connection:
        connection.execute(text("SELECT CAST(:email AS integer)"), {"email": MARKER})
    other.dispose()

    assert MARKER in log.text()


def test_a_role_that_was_granted_the_settings_is_quiet_too(loud_database: str, servers: Settings, log: Log) -> None:
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE ROLE {ROLE} LOGIN"))
    ours = make_url(loud_database).set(username=ROLE).render_as_string(hide_password=False)
    engine = make_engine(ours)
    with Session(engine) as session:
        assert set(loud_settings(session)) >= {"log_min_messages", "log_statement"}
    engine.dispose()

    with admin.connect() as connection:
        connection.execute(text(f"GRANT SET ON PARAMETER {', '.join(QUIET)} TO {ROLE}"))
    admin.dispose()
    engine = make_engine(ours)
    with Session(engine) as session:
        assert loud_settings(session) == []
        with pytest.raises(DBAPIError):
            wrong_type(session)
    engine.dispose()
    assert MARKER not in log.text()


def test_nothing_of_our_sessions_is_loud(database: str) -> None:
    with transaction() as session:
        assert loud_settings(session) == []
        for name, value in QUIET_FOR_ANYBODY.items():
            assert session.scalar(text("SELECT current_setting(:name)"), {"name": name}) == value


def test_the_error_of_a_failed_task_contains_no_value(database: str) -> None:
    from pipeline.tasks.app import TaskFailed, app  # noqa: PLC0415 - Celery reads its settings when it is imported

    @app.task(name="test.fails")
    def fails(_email: int) -> None:
        with transaction() as session:
            broken_constraint(session)

    try:
        with captured_log("debug") as lines, pytest.raises(TaskFailed) as caught:
            fails.apply(args=[1], throw=True)
    finally:
        app.tasks.pop("test.fails")

    words = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(lines)
    assert MARKER not in words
    assert "IntegrityError" in str(caught.value) or "UniqueViolation" in str(caught.value)
    assert [line["task"] for line in lines if line["event"] == "task.error"] == ["test.fails"]
