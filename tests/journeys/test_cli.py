"""The command line as a person meets it: in a process of its own, from nothing to everything."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from urllib3.util import Retry

from db.session import make_engine
from pipeline.local import servers
from pipeline.settings import Settings
from tests.conftest import WORKER

README = Path(__file__).parents[2] / "README.md"
KEY = "cGlwZWxpbmUtdGVzdHMtb25seS0wMTIzNDU2Nzg5QUI="


@pytest.fixture
def fresh_database(servers: Settings) -> Iterator[str]:
    """A database without tables."""
    name = f"fresh_{WORKER}"
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def pipeline(*arguments: str, cwd: Path, timeout_s: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command, run from a folder that is not the project's."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.slow
def test_a_database_of_ones_own_is_migrated_by_command_only(
    fresh_database: str, servers: Settings, tmp_path: Path
) -> None:
    own = {
        "DATABASE_URL": fresh_database,
        "REDIS_URL": servers.redis_url,
        "BROKER_URL": servers.broker_url,
        "SECRET_KEYS": KEY,
    }
    before = pipeline("connectors", "list", cwd=tmp_path, **own)
    migrated = pipeline("migrate", "--json", cwd=tmp_path, **own)
    after = pipeline("connectors", "list", "--json", cwd=tmp_path, **own)
    engine = make_engine(fresh_database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    rolled_back = pipeline("migrate", cwd=tmp_path, **own)
    on_newer = pipeline("connectors", "list", "--json", cwd=tmp_path, **own)

    assert (rolled_back.returncode, "was not changed" in rolled_back.stdout) == (0, True)
    assert (on_newer.returncode, json.loads(on_newer.stdout)) == (0, {"connectors": []})
    assert (before.returncode, "run: pipeline migrate" in before.stderr) == (1, True)
    assert json.loads(migrated.stdout)["before"] is None
    assert (after.returncode, json.loads(after.stdout)) == (0, {"connectors": []})


def test_all_mistakes_of_the_environment_are_reported_together(tmp_path: Path) -> None:
    result = pipeline(
        "runs", "list", "acme", cwd=tmp_path, DATABASE_URL="postgresql://x/y", PORT="no", LOG_LEVEL="loud"
    )

    assert result.returncode == 1
    assert all(name in result.stderr for name in ("SECRET_KEYS", "PORT", "LOG_LEVEL"))
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_the_demo_shows_everything_and_leaves_nothing_running(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    result = pipeline(
        "demo", "--persons", "300", "--organizations", "60", cwd=tmp_path, timeout_s=240, DATA_DIR=str(data_dir)
    )
    servers.remove(Settings.from_env({"DATA_DIR": str(data_dir)}))

    assert result.returncode == 0, result.stdout + result.stderr
    assert "✗" not in result.stdout
    assert [line[0] for line in result.stdout.splitlines() if line[:2] in {f"{n}." for n in range(1, 6)}] == list(
        "12345"
    )
    assert processes_that_mention(str(data_dir)) == []


@pytest.fixture
def up(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`pipeline up` in a process of its own, and the object it printed."""
    data_dir = tmp_path / ".data"
    more = getattr(request, "param", ())
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "up", "--persons", "20", "--organizations", "5", "--json", *more],
        cwd=tmp_path,
        env={**os.environ, "DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    printed = "".join(iter(process.stdout.readline, "}\n")) + "}"
    yield process, json.loads(printed)
    process.kill()
    process.communicate()
    servers.remove(Settings.from_env({"DATA_DIR": str(data_dir)}))


@pytest.mark.slow
def test_everything_runs_until_a_signal(up: tuple[subprocess.Popen[str], dict[str, Any]], tmp_path: Path) -> None:
    process, running = up
    login = Path(running["flower_login_file"])

    assert requests.get(f"{running['web_url']}/healthz", timeout=10).status_code == 200
    assert until_flower_answers(running["flower_url"]) == 401
    assert requests.get(running["flower_url"], auth=tuple(login.read_text().strip().split(":")), timeout=10).ok
    assert login.stat().st_mode & 0o077 == 0
    assert set(running["pids"]) == {"sandbox", "intake", "web", "live", "control", "bulk", "beat", "flower"}

    compared = subprocess.run(
        [sys.executable, "-m", "pipeline", "verify", "demo", "--json"],
        cwd=tmp_path,
        env={**os.environ, "DATA_DIR": running["data_dir"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(compared.stdout)["tokens"] > 0, compared.stderr  # it asks the sandbox, as the workers do
    second = pipeline("up", "--json", cwd=tmp_path, DATA_DIR=running["data_dir"])
    assert second.returncode == 1
    assert f"pipeline up (process {process.pid}) already runs with DATA_DIR={running['data_dir']}" in second.stderr
    assert requests.get(f"{running['web_url']}/healthz", timeout=10).status_code == 200

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=60) == 0
    assert [pid for pid in running["pids"].values() if Path(f"/proc/{pid}").exists()] == []
    assert servers.status(Settings.from_env({"DATA_DIR": running["data_dir"]})) is None


@pytest.mark.slow
@pytest.mark.parametrize("up", [("--no-example",)], indirect=True)
def test_the_sandbox_commands_of_the_readme_work(
    up: tuple[subprocess.Popen[str], dict[str, Any]], tmp_path: Path
) -> None:
    section = README.read_text().partition("## Try it with the sandbox")[2].partition("\n## ")[0]
    assert "pipeline up --no-example" in section
    commands = section.split("```")[3].replace(". .venv/bin/activate", "set -eu")

    result = subprocess.run(
        ["bash", "-c", commands],  # noqa: S607 - the README uses bash
        cwd=tmp_path,
        env={
            **os.environ,
            "DATA_DIR": up[1]["data_dir"],
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "No drift" in result.stdout


@pytest.mark.slow
def test_a_killed_supervisor_leaves_no_process_behind(up: tuple[subprocess.Popen[str], dict[str, Any]]) -> None:
    process, running = up
    status = servers.status(Settings.from_env({"DATA_DIR": running["data_dir"]}))
    assert status is not None
    assert status.ready == {"postgres", "valkey"}
    process.kill()
    process.wait(timeout=60)

    for pid in (*running["pids"].values(), *status.pids.values()):
        wait_for_end(pid)


def until_flower_answers(url: str) -> int:
    """Return Flower's status for a request without a password, as soon as it answers."""
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=Retry(connect=10, backoff_factor=0.2)))
    return session.get(url, timeout=20).status_code


def wait_for_end(pid: int) -> None:
    """Return when the process has ended; fail when it has not in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([handle], [], [], 60)
    os.close(handle)
    assert ended, f"process {pid} still runs"


def processes_that_mention(folder: str) -> list[str]:
    """Command lines and environments of this account's processes that name the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if folder.encode() in about:
            found.append(about.decode(errors="replace").replace("\0", " ")[:200])
    return found
