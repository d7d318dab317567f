"""`python -m pipeline.local`, as an operator types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.local import servers
from pipeline.local.__main__ import main
from pipeline.settings import PROJECT_DIR, Settings, use
from tests.integration.local.processes import PATIENCE_S, process, wait_stopped


@pytest.mark.parametrize("words", [[], ["start"], ["status", "7"], ["hold", "now"]])
def test_bad_usage_names_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "status|hold|stop|remove" in capsys.readouterr().err


def test_status_shows_what_runs(running: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert by_hand(running, "status") == 0

    written = capsys.readouterr().out
    assert f"run by a test, process {os.getpid()}\npostgres: answers, process " in written
    assert "valkey: answers, process " in written


def test_stop_stops_and_status_shows_it(shared: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with process("serve", shared) as holder:
        holder.urls()

        assert by_hand(shared, "stop") == 0
        assert by_hand(shared, "status") == 0

    assert f"no embedded server runs for DATA_DIR={shared.data_dir}" in capsys.readouterr().out


def test_a_malformed_environment_fails_with_its_reasons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "http")
    use(None)

    assert main(["status"]) == 1

    assert "PORT must be" in capsys.readouterr().err


def test_hold_runs_the_servers_until_it_is_interrupted(shared: Settings) -> None:
    with hold(shared) as holder:
        holder.send_signal(signal.SIGINT)

        assert holder.wait(PATIENCE_S) == 0
    wait_stopped(shared)


def test_hold_ends_with_the_process_that_it_is_for(shared: Settings) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
        hold(shared, str(other.pid)) as holder,
    ):
        other.kill()

        assert holder.wait(PATIENCE_S) == 0
    wait_stopped(shared)


def test_hold_for_a_process_that_has_ended_starts_nothing(shared: Settings) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        other.wait(PATIENCE_S)

    assert by_hand(shared, "hold", str(other.pid)) == 0
    assert servers.status(shared) is None


@contextmanager
def hold(settings: Settings, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run `hold`; the block starts when its servers answer."""
    command = [sys.executable, "-m", "pipeline.local", "hold", *words]
    env = {"DATA_DIR": str(settings.data_dir), "PATH": os.defpath}
    with subprocess.Popen(command, cwd=PROJECT_DIR, env=env, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline().startswith("postgresql+psycopg2://")
        status = servers.status(settings)
        assert status is not None
        assert status.ready == {"postgres", "valkey"}
        yield holder


def by_hand(settings: Settings, *words: str) -> int:
    """Run a command with these settings in force."""
    use(settings)
    try:
        return main([*words])
    finally:
        use(None)
