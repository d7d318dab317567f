"""Served systems: a process each, an answer when ready, stopped by a signal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
import requests

from sandbox import serve
from sandbox.pipedrive import start

KEYS = {
    "pipedrive_url", "api_token", "oauth_client_id", "oauth_client_secret", "hull_url", "hull_connector_id", "hull_secret",
    "hull_organization",
}  # fmt: skip


def test_a_system_answers_when_ready_and_ends_on_sigterm() -> None:
    running = serve.start(start.FACTORY, {"persons": 10, "organizations": 5})
    serve.wait_until_ready(running)
    with requests.Session() as session:
        first = session.get(f"{running.url}/__sandbox__/stats")
        again = session.get(f"{running.url}/__sandbox__/stats")

        running.process.terminate()
        running.process.wait(30)  # although the connection is still open

    running.stop()
    assert (first.status_code, again.status_code) == (200, 200)
    with pytest.raises(requests.ConnectionError):
        requests.get(running.url, timeout=5)


def test_a_port_is_held_by_one_system() -> None:
    running = serve.start(start.FACTORY, {"persons": 1, "organizations": 1})
    try:
        with pytest.raises(OSError, match="in use"):
            serve.start(start.FACTORY, {}, port=int(running.url.rsplit(":", 1)[1]))
    finally:
        running.stop()


def test_a_system_that_cannot_start_reports_it(capfd: pytest.CaptureFixture[str]) -> None:
    running = serve.start(start.FACTORY, {"shoe_size": 44})
    try:
        with pytest.raises(RuntimeError, match="did not start"):
            serve.wait_until_ready(running)
    finally:
        running.stop()

    assert "shoe_size" in capfd.readouterr().err


def test_both_systems_print_one_line_then_serve() -> None:
    command = [sys.executable, "-m", "sandbox", "--json", "--persons", "20", "--organizations", "5", "--users", "5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    announced = json.loads(process.stdout.readline())

    answer = requests.get(
        f"{announced['pipedrive_url']}/v1/users/me", headers={"x-api-token": announced["api_token"]}, timeout=10
    )
    hull = requests.get(announced["hull_url"], timeout=10)
    asked = {"client_id": announced["oauth_client_id"], "redirect_uri": "http://ours.test/", "decision": "allow"}
    allowed = requests.get(f"{announced['pipedrive_url']}/oauth/authorize", asked, timeout=10, allow_redirects=False)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)

    assert set(announced) == KEYS
    assert answer.json()["data"]["company_name"]
    assert hull.status_code < 500
    assert allowed.headers["location"].startswith("http://ours.test/?code=")
    assert announced["hull_url"] == f"http://{announced['hull_organization']}"
    assert len(announced["hull_connector_id"]) == 24
    assert (process.returncode, out, err) == (0, "", "")
    with pytest.raises(requests.ConnectionError):
        requests.get(announced["pipedrive_url"], timeout=5)


def test_a_taken_port_is_a_failure_with_a_reason() -> None:
    running = serve.start(start.FACTORY, {"persons": 1, "organizations": 1})
    port = running.url.rsplit(":", 1)[1]
    try:
        command = [sys.executable, "-m", "sandbox", "--json", "--pipedrive-port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        running.stop()

    assert (done.returncode, done.stdout) == (1, "")
    assert "in use" in done.stderr
