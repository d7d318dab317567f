"""`python -m pipeline.embedded`, as an operator types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pipeline import embedded
from pipeline.data_dir import PROJECT_DIR
from pipeline.embedded.__main__ import main
from pipeline.settings import Settings, use
from tests.integration.embedded.users import PATIENCE_S, wait_stopped


@pytest.mark.parametrize("words", [[], ["start"], ["status", "now"]])
def test_bad_usage_names_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "status|hold|stop|remove" in capsys.readouterr().err


def test_status_shows_what_runs(shared: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    embedded.ensure(shared)

    assert by_hand(shared, "status") == 0

    assert "postgres: answers" in capsys.readouterr().out


def test_stop_stops_and_status_says_so(shared: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    embedded.ensure(shared)

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


def test_hold_keeps_the_servers_until_it_is_interrupted(shared: Settings) -> None:
    embedded.stop(shared)
    command = [sys.executable, "-m", "pipeline.embedded", "hold"]
    env = {"DATA_DIR": str(shared.data_dir), "PATH": os.defpath}
    with subprocess.Popen(command, cwd=PROJECT_DIR, env=env, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline().startswith("postgresql+psycopg2://")
        assert embedded.status(shared)["postgres"].ready

        holder.send_signal(signal.SIGINT)

        assert holder.wait(PATIENCE_S) == 0
    wait_stopped(shared)


def by_hand(settings: Settings, command: str) -> int:
    """Run a command with these settings in force."""
    use(settings)
    try:
        return main([command])
    finally:
        use(None)
