"""Migrations tell the whole story, up and down; events have a home on every day."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from freezegun import freeze_time
from sqlalchemy import Engine, event, inspect, text
from sqlalchemy.orm import Session

import db
from db.migrate import current_revision, drift, migrate, unmigrate
from db.session import make_engine
from db.sync_event import NewEvent, detach_partition, drop_partition, log_events, make_partitions, old_partitions
from pipeline.vault import Vault

for _module in iter_modules(db.__path__):  # while no clock is frozen: SQLAlchemy knows the real `datetime` only
    import_module(f"db.{_module.name}")

PROJECT = Path(__file__).parents[3]
TODAY = date(2026, 3, 4)


@pytest.fixture(scope="module", autouse=True)
def _today() -> Iterator[None]:
    """Let migrations and tests run on one day, so that both make the same partitions."""
    with freeze_time(TODAY, real_asyncio=True):
        yield


@pytest.fixture(scope="module")
def migrated_today(new_database: Callable[..., str]) -> str:
    """The name of a migrated, empty database with the partitions of that day."""
    engine = make_engine(new_database("migrated_today"))
    migrate(engine)
    engine.dispose()
    assert engine.url.database
    return engine.url.database


@pytest.fixture
def empty(new_database: Callable[..., str]) -> Iterator[Engine]:
    """A database of this test's own, without any table."""
    engine = make_engine(new_database("migrations"))
    yield engine
    engine.dispose()


@pytest.fixture
def migrated(new_database: Callable[..., str], migrated_today: str) -> Iterator[Engine]:
    """A database of this test's own with every table."""
    engine = make_engine(new_database("migrations", migrated_today))
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def partitions(engine: Engine) -> set[str]:
    return {name for name in tables(engine) if name.startswith("sync_events_2")}


def test_up_down_and_up_again_end_where_they_began(empty: Engine) -> None:
    migrate(empty)
    first = tables(empty)
    unmigrate(empty)
    bare = tables(empty)
    migrate(empty)

    assert bare <= {"alembic_version"}
    assert tables(empty) == first
    assert current_revision(empty) is not None


def test_the_schema_of_a_later_version_is_left_as_it_is(migrated: Engine) -> None:
    """So the version before can be started again after an upgrade: its `pipeline migrate` runs first."""
    with migrated.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = tables(migrated)

    migrate(migrated)

    assert current_revision(migrated) == "9999"
    assert tables(migrated) == before


def test_the_migrations_leave_nothing_to_add(migrated: Engine) -> None:
    assert drift(migrated) == []


def test_drift_is_noticed(migrated: Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(text("ALTER TABLE runs ADD COLUMN surprise text"))

    assert len(drift(migrated)) == 1


def test_migrating_twice_does_nothing(migrated: Engine) -> None:
    before = tables(migrated)

    migrate(migrated)

    assert tables(migrated) == before


def test_several_may_migrate_at_once(empty: Engine) -> None:
    """As when all processes of a deployment start together."""
    url = empty.url.render_as_string(hide_password=False)
    command = [
        sys.executable,
        "-c",
        "import sys; from db import migrate, session; migrate.migrate(session.make_engine(sys.argv[1]))",
    ]
    processes = [subprocess.Popen([*command, url], cwd=PROJECT) for _ in range(3)]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert drift(empty) == []
    assert len(partitions(empty)) == 8


def test_no_extension_is_needed(migrated: Engine) -> None:
    with migrated.connect() as connection:
        extensions = set(connection.scalars(text("SELECT extname FROM pg_extension")))

    assert extensions == {"plpgsql"}


def test_the_coming_days_have_their_partitions(migrated: Engine) -> None:
    assert partitions(migrated) == {f"sync_events_{TODAY + timedelta(days=n):%Y%m%d}" for n in range(8)}


def test_making_partitions_again_makes_only_what_is_missing(migrated: Engine) -> None:
    with Session(migrated) as session, session.begin():
        none = make_partitions(session, TODAY)
        one = make_partitions(session, TODAY + timedelta(days=1))

    assert none == []
    assert one == [f"sync_events_{TODAY + timedelta(days=8):%Y%m%d}"]


def log_at(engine: Engine, at: date, pipedrive_id: int) -> None:
    with Session(engine) as session, session.begin():
        log_events(
            session,
            [NewEvent(connector_key=1, event="x", entity="person", cause="test", pipedrive_id=pipedrive_id)],
        )
        session.execute(
            text("UPDATE sync_events SET at = :at WHERE pipedrive_id = :id"), {"at": at, "id": pipedrive_id}
        )


def homes(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT pipedrive_id, tableoid::regclass::text AS home FROM sync_events"))
        return {row.pipedrive_id: row.home for row in rows}


def test_an_event_on_a_day_without_a_partition_is_kept(migrated: Engine) -> None:
    far = TODAY + timedelta(days=30)
    log_at(migrated, TODAY, 1)
    log_at(migrated, far, 2)

    assert homes(migrated) == {1: f"sync_events_{TODAY:%Y%m%d}", 2: "sync_events_other"}


def test_a_day_that_was_missed_gets_its_partition_and_its_events(migrated: Engine) -> None:
    """Beat was away for a week: events went to the default partition, which must not stop the days from being made."""
    far = TODAY + timedelta(days=30)
    log_at(migrated, far, 1)
    log_at(migrated, far + timedelta(days=1), 2)
    log_at(migrated, far + timedelta(days=60), 3)

    with Session(migrated) as session, session.begin():
        made = make_partitions(session, far)

    assert len(made) == 8
    assert homes(migrated) == {
        1: f"sync_events_{far:%Y%m%d}",
        2: f"sync_events_{far + timedelta(days=1):%Y%m%d}",
        3: "sync_events_other",
    }


def test_days_past_their_retention_are_dropped_and_no_others(migrated: Engine) -> None:
    log_at(migrated, TODAY, 1)
    with Session(migrated) as session, session.begin():
        kept = old_partitions(session, TODAY + timedelta(days=90))
        dropped = old_partitions(session, TODAY + timedelta(days=92))
        for name in dropped:
            detach_partition(session, name)
        left = old_partitions(session, TODAY + timedelta(days=92))
        for name in dropped:
            drop_partition(session, name)

    assert kept == {}
    assert left == dict.fromkeys(dropped, False)
    assert list(dropped) == [f"sync_events_{TODAY + timedelta(days=n):%Y%m%d}" for n in range(2)]
    assert homes(migrated) == {}
    assert {"sync_events", "sync_events_other"} <= tables(migrated)


def test_replays_that_nobody_carried_on_say_so_after_the_migration(migrated: Engine) -> None:
    unmigrate(migrated, "0011")
    with migrated.begin() as connection:
        for state in ("running", "running", "aborted", "paused", "running"):
            connection.execute(
                text(
                    "INSERT INTO replays (connector_key, asked_by, why, chosen, per_second, state)"
                    " VALUES (1, 'ada', 'x', '{}', 1, :s)"
                ),
                {"s": state},
            )
        for key, state in ((1, "failed"), (2, "failed"), (2, "due"), (3, "failed"), (4, "failed"), (5, "due")):
            connection.execute(
                text(
                    "INSERT INTO errands (kind, key, state, reason, ended_at)"
                    " VALUES ('replay', :k, :s, CASE :s WHEN 'failed' THEN 'worker_lost' END, now())"
                ),
                {"k": str(key), "s": state},
            )

    migrate(migrated)

    with migrated.connect() as connection:
        found = connection.execute(text("SELECT state, reason, ended_at IS NOT NULL FROM replays ORDER BY id")).all()
    assert [tuple(row) for row in found] == [
        ("stopped", "worker_lost", True),
        ("running", None, False),
        ("aborted", "worker_lost", True),
        ("paused", None, False),
        ("running", None, False),
    ]


def test_false_conflicts_end_and_what_they_held_up_is_sent_after_the_migration(migrated: Engine) -> None:
    unmigrate(migrated, "0013")
    rows = [(1, "h1", "conflict", "d"), (2, "h2", "conflict", None), (3, None, "conflict", "d"), (4, "h4", "full", "d")]
    with migrated.begin() as connection:
        for pipedrive_id, hull_id, state, digest in rows:
            connection.execute(
                text(
                    "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, hull_id, state, digest, matched_by, resolve_at)"
                    " VALUES (1, 'person', :p, :h, :s, :d, 'webhook', NULL)"
                ),
                {"p": pipedrive_id, "h": hull_id, "s": state, "d": digest},
            )
        for record_id, reason in (("h1", "several_ids"), ("h2", "refused_by_pipedrive"), ("h4", "several_ids")):
            connection.execute(
                text(
                    "INSERT INTO failures (connector_key, kind, subject, direction, entity, record_id, stage, reason, detail,"
                    " fingerprint) VALUES (1, 'record', :r, 'outgoing', 'person', :r, 'load', :why, '', 'f')"
                ),
                {"r": record_id, "why": reason},
            )

    migrate(migrated)

    with migrated.connect() as connection:
        found = connection.execute(
            text("SELECT pipedrive_id, state, resolve_at IS NOT NULL FROM id_mappings ORDER BY pipedrive_id")
        ).all()
        changes = connection.execute(text("SELECT entity, direction, record_id, cause FROM changes")).all()
    assert [tuple(row) for row in found] == [
        (1, "full", False),
        (2, "shell", False),
        (3, "conflict", True),
        (4, "full", False),
    ]
    assert [tuple(row) for row in changes] == [("person", "outgoing", "h1", "conflict_settled")]


HIDDEN = "xn--" + "exam\u200bple".encode("punycode").decode() + ".com"
"""A domain with a character in it that nobody sees."""


def test_stored_identifiers_are_found_by_the_spelling_of_now_after_the_migration(migrated: Engine) -> None:
    unmigrate(migrated, "0018")
    claims = [
        ("email", "ada\u200b@example.com", 1),
        ("email", "bo@m\u00fcnchen.de", 2),
        ("email", "eve@example.com", 3),
        ("email", "\ufeffeve@example.com", 4),
        ("domain", HIDDEN, 5),
        ("external_id", "C-9\uff19", 6),
    ]
    aliases = [("email", "\uff41da@home.test", 1), ("email", "plain@home.test", 1)]
    with migrated.begin() as connection:
        for table, rows in (("claims", claims), ("known_as", aliases)):
            for claim, value, holder in rows:
                connection.execute(
                    text(
                        f"INSERT INTO {table} (connector_key, entity, claim, value, pipedrive_id)"  # noqa: S608
                        " VALUES (1, 'person', :c, :v, :p)"
                    ),
                    {"c": claim, "v": value, "p": holder},
                )

    migrate(migrated)

    with migrated.connect() as connection:
        held = connection.execute(
            text("SELECT pipedrive_id, value FROM identifiers WHERE role = 'holder' ORDER BY 1")
        ).all()
        known = connection.execute(
            text("SELECT pipedrive_id, value FROM identifiers WHERE role = 'alias' ORDER BY 1, 2")
        ).all()
    assert [tuple(row) for row in held] == [
        (1, "ada@example.com"),
        (2, "bo@xn--mnchen-3ya.de"),
        (3, "eve@example.com"),
        (5, "example.com"),
        (6, "C-99"),
    ]
    assert [tuple(row) for row in known] == [
        (1, "ada@home.test"),
        (1, "plain@home.test"),
        (4, "eve@example.com"),
    ]


def test_users_that_lost_fields_before_the_field_list_was_read_are_sent_once_more(migrated: Engine) -> None:
    unmigrate(migrated, "0018")
    with migrated.begin() as connection:
        connection.execute(text("INSERT INTO connectors (id, name, hull_organization) VALUES ('a', 'a', 'a.test')"))
        connection.execute(
            text(
                "INSERT INTO field_definitions (connector_key, entity, rows)"
                " VALUES (1, 'person', '[{\"field_code\": \"there\"}]')"
            )
        )
        told = [
            (7, "error", "field_missing", "there: no field of persons", None, "settings"),
            (7, "success", None, "", "ann", "notification"),
            (8, "error", "field_missing", "gone: no field of persons", None, "settings"),
            (8, "success", None, "", "ben", "notification"),
        ]
        for batch, outcome, reason, detail, hull_id, cause in told:
            connection.execute(
                text(
                    "INSERT INTO sync_events (connector_key, event, entity, reason, detail, hull_id, batch_id, cause)"
                    " VALUES (1, :event, 'person', :reason, :detail, :h, :b, :cause)"
                ),
                {"event": f"outgoing.user.{outcome}", "reason": reason, "detail": detail, "h": hull_id, "b": batch}
                | {"cause": cause},
            )
        for hull_id in ("ann", "ben"):
            connection.execute(
                text("INSERT INTO snapshots VALUES (1, 'person', 'hull', :h, 1, '')"),
                {"h": hull_id},
            )

    migrate(migrated)

    with migrated.connect() as connection:
        sent = connection.execute(text("SELECT direction, entity, record_id FROM changes")).all()
    assert [tuple(row) for row in sent] == [("outgoing", "person", "ann")]


def test_jobs_keep_their_secrets_and_failures_when_errands_are_renamed(
    migrated: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Fernet.generate_key().decode()
    monkeypatch.setattr("pipeline.settings.settings", lambda: SimpleNamespace(secret_keys=(key,)))
    old = [
        ("settings", "1", None),
        ("adoption", "abc", "credentials"),
        ("log", "7", "filter"),
        ("export", "1:x", "address"),
    ]
    unmigrate(migrated, "0036")
    with migrated.begin() as connection:
        for kind, name, secret in old:
            sealed = Vault((key,)).seal(0, f"errand:{kind}:{name}", secret) if secret else None
            connection.execute(
                text("INSERT INTO errands (kind, key, sealed, asked, mark) VALUES (:kind, :key, :sealed, 2, 'm')"),
                {"kind": kind, "key": name, "sealed": sealed},
            )
        connection.execute(text("INSERT INTO export_files (errand_id, validator) VALUES (4, 'tag')"))
        for subject, stage in (
            ("control:settings", "control.errand"),
            ("control:log:3", "control.errand"),
            ("control:export:4", "control.errand"),
            ("control:logs:9", "control.sweep"),
        ):
            connection.execute(
                text(
                    "INSERT INTO failures (connector_key, kind, subject, direction, entity, stage, reason, detail, fingerprint)"
                    " VALUES (1, 'control', :subject, 'outgoing', '', :stage, 'internal_error', '', 'f')"
                ),
                {"subject": subject, "stage": stage},
            )

    migrate(migrated)

    with migrated.connect() as connection:
        jobs = connection.execute(
            text("SELECT kind, dedupe_key, secret, requested, checkpoint FROM jobs ORDER BY id")
        ).all()
        failures = connection.execute(text("SELECT subject, stage FROM failures ORDER BY id")).all()
        assert connection.execute(text("SELECT job_id FROM export_files")).scalar_one() == 4
    opened = [
        Vault((key,)).open(0, f"job:{row.kind}:{row.dedupe_key}", bytes(row.secret)) if row.secret else None
        for row in jobs
    ]
    assert [(row.kind, row.requested, row.checkpoint) for row in jobs] == [
        ("settings_sync", 2, "m"),
        ("connector_creation", 2, "m"),
        ("log_export", 2, "m"),
        ("export", 2, "m"),
    ]
    assert opened == [None, "credentials", "filter", "address"]
    assert [tuple(row) for row in failures] == [
        ("control:settings_sync", "control.job"),
        ("control:log_export:3", "control.job"),
        ("control:export:4", "control.job"),
        ("control:logs:9", "control.sweep"),
    ]
    assert drift(migrated) == []


def test_four_tables_become_identifiers_and_a_column_of_watermarks(migrated: Engine) -> None:
    unmigrate(migrated, "0039")
    with migrated.begin() as connection:
        for row in (
            "connectors (id, name, hull_organization) VALUES ('a', 'a', 'a.test')",
            "claims VALUES (1, 'person', 'email', 'ada@a.test', 1, 2), (1, 'organization', 'domain', 'a.test', 0, NULL)",
            "known_as VALUES (1, 'person', 'email', 'ada@a.test', 2), (1, 'person', 'email', 'ada@b.test', 1)",
            "create_intents VALUES (1, 'person', 'email', 'ben@a.test', 'ben')",
            "watermarks (connector_key, entity, reached_at) VALUES (1, 'person', '2026-03-01 UTC')",
            "mirrors VALUES (1, 'person', '2026-03-02 UTC'), (1, 'organization', '2026-03-03 UTC')",
        ):
            connection.execute(text(f"INSERT INTO {row}"))

    migrate(migrated)

    with migrated.connect() as connection:
        found = connection.execute(
            text(
                "SELECT role, entity, kind, value, coalesce(pipedrive_id::text, hull_id), wanted_by FROM identifiers"
                " ORDER BY role, entity, value, pipedrive_id"
            )
        ).all()
        marks = connection.execute(
            text("SELECT entity, reached_at::date, listed_at::date FROM watermarks ORDER BY entity")
        ).all()
    assert [tuple(row) for row in found] == [
        ("alias", "person", "email", "ada@a.test", "2", None),
        ("alias", "person", "email", "ada@b.test", "1", None),
        ("holder", "organization", "domain", "a.test", "0", None),
        ("holder", "person", "email", "ada@a.test", "1", 2),
        ("reserved", "person", "email", "ben@a.test", "ben", None),
    ]
    assert [tuple(row) for row in marks] == [
        ("organization", None, date(2026, 3, 3)),
        ("person", date(2026, 3, 1), date(2026, 3, 2)),
    ]
    assert not {"claims", "known_as", "create_intents", "mirrors"} & tables(migrated)

    unmigrate(migrated, "0039")

    with migrated.connect() as connection:
        kept = {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608
            for table in ("claims", "known_as", "create_intents", "mirrors")
        }
    assert kept == {"claims": 2, "known_as": 2, "create_intents": 1, "mirrors": 2}


def test_a_migration_takes_as_long_as_it_takes_and_leaves_the_limits_of_all_others(migrated: Engine) -> None:
    limits = text(
        "SELECT name, setting FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout') ORDER BY name"
    )
    limited = make_engine(migrated.url.render_as_string(hide_password=False))
    during: list[str] = []

    @event.listens_for(limited, "before_cursor_execute")
    def _look(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "failures_batches" in statement:
            with connection.connection.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                during.append(cursor.fetchone()[0])

    unmigrate(limited, "0012")
    migrate(limited)

    with limited.connect() as connection:
        after = [tuple(row) for row in connection.execute(limits)]
    limited.dispose()
    assert set(during) == {"0"}
    assert after == [("lock_timeout", "15000"), ("statement_timeout", "120000")]
