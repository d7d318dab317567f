"""What all tests share: a clean environment, servers that begin when first needed, and a system to synchronise.

PostgreSQL and Redis are those of TEST_DATABASE_URL and TEST_REDIS_URL where these are set, else embedded ones that live as long
as the test run. Each pytest-xdist worker has a database and a Redis number of its own.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import hypothesis
import pytest

SCRUBBED = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "PIPEDRIVE_API_URL", "HULL_FIREHOSE_URL", "SECRET_KEYS")
for name in [name for name in os.environ if name.removesuffix("_FILE") in SCRUBBED]:
    del os.environ[name]

MADE_HERE = "TEST_DATA_DIR" not in os.environ
DATA_DIR = Path(os.environ.setdefault("TEST_DATA_DIR", tempfile.mkdtemp(prefix="pipeline-tests-")))
os.environ["DATA_DIR"] = str(DATA_DIR)
os.environ.setdefault("TEST_SESSION_PID", str(os.getpid()))
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")

from sqlalchemy import TextClause, create_engine, text  # noqa: E402 - the environment is clean from here on
from sqlalchemy.engine import make_url  # noqa: E402

from pipeline import settings as settings_room  # noqa: E402
from pipeline import telemetry  # noqa: E402
from pipeline.local import servers as local_servers  # noqa: E402
from pipeline.settings import Settings  # noqa: E402
from tests import outside_reads  # noqa: E402
from tests.open_transactions import none_during_http  # noqa: E402

if TYPE_CHECKING:
    from tests.manual_clock import Clock
    from tests.system import SyncSystem

outside_reads.watch()
gc.disable()  # until the tests are collected: they are all kept
telemetry.configure("error")
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

COUNT_FROM_ONE = """
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false)
      FROM pg_sequences WHERE last_value IS NOT NULL"""
CHEAP_HASH = {"time_cost": 1, "memory_cost": 8, "parallelism": 1}
"""Argon2 as operators use it costs a tenth of a second of a processor; `test_login` checks that they do."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in a random order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (seed := config.getoption("shuffle")) is not None:
        Random(seed).shuffle(items)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from visiting every collected test again: they live until the end."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    if MADE_HERE and "PYTEST_XDIST_WORKER" not in os.environ:
        local_servers.remove(_embedded_settings())
        shutil.rmtree(DATA_DIR, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_ALL=1, count a skipped test as failed."""
    report = yield
    if os.environ.get("REQUIRE_ALL") == "1":
        fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport) -> None:
    """Turn a skipped test into a failed one, unless it lacks only root's rights, a base image or RabbitMQ, or fails as expected."""
    reason = str(report.longrepr)
    is_excused = "needs root" in reason or "needs a base image" in reason or "needs RabbitMQ" in reason
    if report.skipped and not is_excused and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although REQUIRE_ALL=1: {reason}"


def _embedded_environment() -> dict[str, str]:
    given = {"DATA_DIR": str(DATA_DIR), "SECRET_KEYS": "cGlwZWxpbmUtdGVzdHMtb25seS0wMTIzNDU2Nzg5QUI="}
    for name in ("DATABASE_URL", "REDIS_URL"):
        if f"TEST_{name}" in os.environ:
            given[name] = os.environ[f"TEST_{name}"]
    return given


@cache
def _embedded_settings() -> Settings:
    return Settings.from_env(_embedded_environment())


@pytest.fixture(scope="session")
def servers() -> Settings:
    """The settings of the servers of this test run: one process holds them for all pytest-xdist workers, until the run ends.

    An embedded PostgreSQL does not wait for the disk.
    """
    settings = _embedded_settings()
    holder = subprocess.Popen(
        [sys.executable, "-m", "pipeline.local", "hold", os.environ["TEST_SESSION_PID"]],
        env=os.environ | _embedded_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it says so if another worker was faster
        start_new_session=True,
    )
    assert holder.stdout is not None
    with holder.stdout as lines:
        if not lines.readline():  # it did not start: another one runs, or the next call says why not
            holder.wait()
    holder.returncode = 0  # it runs longer than this process: nobody waits for it
    found = local_servers.complete(settings)
    if "TEST_DATABASE_URL" not in os.environ:
        _write_without_waiting(found.database_url or "")
    return found


def _write_without_waiting(database_url: str) -> None:
    """Switch off what only a crash of the machine would need; the server reads it without a restart."""
    admin = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {name} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    admin.dispose()


@pytest.fixture(scope="session")
def new_database(servers: Settings) -> Iterator[Callable[..., str]]:
    """Make a database of this worker's own by its name, as a copy of `template`; drop it at the end. Returns its URL."""
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    names: set[str] = set()

    def make(purpose: str, template: str = "template1") -> str:
        name = f"test_{purpose}_{WORKER}"
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        names.add(name)
        return make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)

    yield make
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="session")
def template(new_database: Callable[..., str]) -> str:
    """The name of a migrated, empty database that nobody connects to."""
    from db.migrate import migrate  # noqa: PLC0415 - unit tests need none of this
    from db.session import make_engine  # noqa: PLC0415

    engine = make_engine(new_database("template"))
    migrate(engine)
    engine.dispose()
    assert engine.url.database
    return engine.url.database


@pytest.fixture(scope="session")
def database_url(new_database: Callable[..., str], template: str) -> Iterator[str]:
    """A migrated database of this worker's own."""
    from db.session import engine, use_database  # noqa: PLC0415

    url = new_database("main", template)
    yield url
    use_database(url)  # other tests may have named another one since
    engine().dispose()


@pytest.fixture(scope="session")
def _cheap_hashes() -> None:
    from argon2 import PasswordHasher  # noqa: PLC0415

    from pipeline.accounts import passwords  # noqa: PLC0415

    passwords.PasswordHasher = partial(PasswordHasher, **CHEAP_HASH)  # type: ignore[misc,assignment]
    passwords._hasher.cache_clear()
    passwords._dummy_hash.cache_clear()


@pytest.fixture(autouse=True)
def _no_transaction_during_http() -> Iterator[None]:
    with none_during_http():
        yield


@pytest.fixture(autouse=True)
def _no_outside_reads() -> Iterator[None]:
    yield
    assert not outside_reads.refused, f"read outside the checkout: {outside_reads.refused}"


@pytest.fixture(scope="session")
def worker_settings(database_url: str, servers: Settings) -> Settings:
    """The settings of every test with a database: checking them again for each test would take five milliseconds."""
    number = int(WORKER.removeprefix("gw"))
    return _embedded_settings().replace(
        database_url=database_url,
        redis_url=_numbered(servers.redis_url, 1 + number),
        broker_url=_numbered_broker(servers.broker_url, 8 + number),
        pipedrive_api_url="http://pipedrive.test",
        hull_protocol="http",
        hull_firehose_url="http://hull.test/api/v1/firehose",
        pipedrive_burst_limit=0,
        lease_s=30.0,
        page_limit=50,
        writes_at_once=1,
    )


@pytest.fixture
def database(database_url: str, worker_settings: Settings, _cheap_hashes: None) -> Iterator[str]:
    """An empty database, and settings in force that name it."""
    from db import token_ledger  # noqa: PLC0415
    from db.session import use_database  # noqa: PLC0415
    from pipeline.connections import shared_redis  # noqa: PLC0415

    settings_room.use(worker_settings)
    use_database(database_url)
    _use_broker(worker_settings)
    yield database_url
    empty_database()
    token_ledger.pending.clear()
    shared_redis().flushdb()  # the same connector's day begins anew with every test
    settings_room.use(None)


def _use_broker(chosen: Settings) -> None:
    """Have the Celery app of this process send to the tests' broker. It may have read its settings in a test without any, and
    would then send to whatever answers on this machine."""
    tasks = sys.modules.get("pipeline.tasks.app")
    if tasks is not None and tasks.app.conf.broker_url != chosen.broker_url:
        tasks.app.conf.broker_url = chosen.broker_url
        tasks.app._pool = tasks.app.amqp._producer_pool = None


def empty_database() -> None:
    """Delete all rows of the database in use, in one round trip, and let its sequences begin at 1 again."""
    from db.session import engine  # noqa: PLC0415

    with engine().begin() as connection:
        connection.execute(_delete_everything())


@cache
def _delete_everything() -> TextClause:
    from db.base import Base  # noqa: PLC0415

    # of small tables, TRUNCATE would take ten times as long
    deletes = [f'DELETE FROM "{table.name}"' for table in reversed(Base.metadata.sorted_tables)]  # noqa: S608
    return text(";".join([*deletes, COUNT_FROM_ONE]))


def _numbered(redis_url: str, number: int) -> str:
    return (
        redis_url.split("?", maxsplit=1)[0] + f"?db={number}"
        if redis_url.startswith("unix")
        else f"{redis_url.rstrip('/0')}/{number}"
    )


def _numbered_broker(broker_url: str, number: int) -> str:
    """Two workers must not take each other's messages."""
    if "virtual_host=" in broker_url:
        return re.sub(r"virtual_host=\d+", f"virtual_host={number}", broker_url)
    return f"{broker_url.rstrip('/0')}/{number}" if broker_url.startswith("redis") else broker_url


@pytest.fixture
def noon(database: str) -> Iterator[Clock]:
    """Time stands still at a noon: what is of today stays so until the test moves the clock."""
    from tests.manual_clock import NOON, manual_clock  # noqa: PLC0415

    with manual_clock(NOON) as clock:
        yield clock


@pytest.fixture
def system(request: pytest.FixtureRequest, database: str) -> Iterator[SyncSystem]:
    """A small Pipedrive company, a Hull organization and a connector between them, all in this process."""
    from tests.system import make_system  # noqa: PLC0415

    with make_system(clock=request.getfixturevalue("noon") if "noon" in request.fixturenames else time.time) as made:
        yield made
