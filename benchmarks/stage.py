"""The stage of a benchmark: its own remote systems, servers and worker, and the CPU time of each.

Everything uses its own data folder, and ends with the benchmark. Limits are off and every message is signed. The connector links
Users, maps 20 fields (10 of them custom), and keeps snapshot, id mapping, claims and one event per record, as in
docs/performance.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks import drill, processes
from sandbox import serve
from sandbox.command import Credentials
from sandbox.pipedrive import start as pipedrive_start

PERSON_FIELDS = [
    "name",
    "first_name",
    "last_name",
    "email",
    "phone",
    "owner_id",
    "add_time",
    "update_time",
    "label_ids",
    "visible_to",
]
ORGANIZATION_FIELDS = [
    "name",
    "owner_id",
    "address",
    "website",
    "add_time",
    "update_time",
    "label_ids",
    "visible_to",
    "industry",
    "linkedin",
]
CUSTOM_FIELDS = 10
READY_TRIES = 60
SINK = "benchmarks.sink:create_sink"
FULL_HULL = "sandbox.hull.app:create_app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The addresses and the processes of a running stage."""

    pipedrive_url: str
    hull_url: str
    credentials: Credentials
    connector_key: int
    roots: dict[str, int]

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each process so far."""
        return {name: processes.cpu_s(root) for name, root in self.roots.items()}

    def worker_peak_mb(self) -> float:
        return processes.peak_mb(self.roots["workers"])


@contextmanager
def stage(  # noqa: PLR0913 - each argument is one choice of a benchmark
    *,
    persons: int,
    organizations: int,
    hull: str = SINK,
    pipedrive: str = pipedrive_start.FACTORY,
    worker_processes: int = 2,
    seed: int = 7,
    burst_limit: int = 0,
    pipedrive_threads: int = serve.THREADS,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Stage]:
    """Start everything, and stop it at the end.

    burst_limit        calls in two seconds that Pipedrive allows, as the pipeline knows; 0 for no limit
    pipedrive_threads  parallel calls of Pipedrive
    environment        additional names for the pipeline's processes
    """
    os.environ |= {**(environment or {}), "PIPEDRIVE_BURST_LIMIT": str(burst_limit)}
    credentials = Credentials.from_seed(seed)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        _remotes(persons, organizations, seed, hull, pipedrive, burst_limit, pipedrive_threads) as remotes,
        ExitStack() as served,
    ):
        _set_environment(remotes, Path(folder))
        served.enter_context(_servers())
        connector_key = _add_connector(remotes[0].url, remotes[1].url, credentials)
        with _worker(worker_processes) as worker:
            roots = {"workers": worker.pid, "pipedrive": remotes[0].process.pid, "hull": remotes[1].process.pid}
            roots |= _server_pids()
            yield Stage(
                pipedrive_url=remotes[0].url,
                hull_url=remotes[1].url,
                credentials=credentials,
                connector_key=connector_key,
                roots=roots,
            )


@contextmanager
def _remotes(
    persons: int, organizations: int, seed: int, hull: str, pipedrive: str, burst_limit: int, threads: int
) -> Iterator[tuple[serve.Running, serve.Running]]:
    credentials = Credentials.from_seed(seed)
    company = {
        "seed": seed,
        "persons": persons,
        "organizations": organizations,
        "api_token": credentials.api_token,
        "prebuilt": True,  # Pipedrive's own work is not measured
        "burst_limit": burst_limit or None,
    }
    first = serve.start(pipedrive, company, threads=threads)
    port = serve.free_port()
    names = {"connector_id": credentials.hull_connector_id, "secret": credentials.hull_secret}
    other = serve.start(hull, names | {"organization": f"127.0.0.1:{port}"}, port=port)
    try:
        for running in (first, other):
            serve.wait_until_ready(running, timeout_s=300)
        yield first, other
    finally:
        first.stop()
        other.stop()


def _set_environment(remotes: tuple[serve.Running, serve.Running], folder: Path) -> None:
    """Point this process and its worker at the remotes and at their own servers."""
    for name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "SECRET_KEYS"):
        os.environ.pop(name, None)
    os.environ |= {
        "DATA_DIR": str(folder / "data"),
        "PIPEDRIVE_API_URL": remotes[0].url,
        "PIPEDRIVE_OAUTH_URL": remotes[0].url,
        "HULL_FIREHOSE_URL": f"{remotes[1].url}/api/v1/firehose",
        "HULL_PROTOCOL": "http",
        "LOG_LEVEL": "warning",
    }


def _add_connector(pipedrive_url: str, hull_url: str, credentials: Credentials) -> int:
    from db import connector as connectors
    from db.migrate import migrate
    from db.session import engine, transaction
    from pipeline.environment import begin
    from pipeline.vault import Vault

    vault = Vault(begin().secret_keys)
    migrate(engine())
    with transaction() as session:
        connector = connectors.Connector(
            id=credentials.hull_connector_id, name="bench", hull_organization=hull_url.removeprefix("http://")
        )
        session.add(connector)
        session.flush()
        secrets = {"hull_secret": credentials.hull_secret, "pipedrive_api_token": credentials.api_token}
        for name, secret in secrets.items():
            connectors.keep_credential(session, connector.key, name, vault.seal(connector.key, name, secret))
        document = settings_document(pipedrive_url, credentials.api_token)
        connectors.add_settings(session, connector.key, document, author="benchmark")
        return connector.key


def settings_document(pipedrive_url: str, api_token: str) -> dict[str, Any]:
    """Return settings with 20 mapped fields for each entity, 10 of them custom, of every type."""

    def rows(entity: str, system: list[str]) -> list[dict[str, str]]:
        answer = requests.get(
            f"{pipedrive_url}/api/v2/{entity}Fields?limit=500", headers={"x-api-token": api_token}, timeout=30
        )
        custom = [field["field_code"] for field in answer.json()["data"] if field["is_custom_field"]]
        return [{"hull": f"pipedrive/{code}", "service": code} for code in [*system, *custom[:CUSTOM_FIELDS]]]

    return {
        "incoming_user_attributes": rows("person", PERSON_FIELDS),
        "incoming_account_attributes": rows("organization", ORGANIZATION_FIELDS),
        "link_users_in_hull": True,
        "daily_tokens": 0,
    }


def start_celery(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a Celery command in a process group of its own, so that the group can be killed."""
    command = [sys.executable, "-m", "celery", "-A", "pipeline", *arguments, "-l", "warning"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def start_worker(processes_: int) -> subprocess.Popen[bytes]:
    """Start a worker on all queues."""
    queues = ["worker", "-Q", "live,bulk,control", "-c", str(processes_)]
    return start_celery(*queues, "--without-gossip", "--without-mingle")


@contextmanager
def _worker(processes_: int) -> Iterator[subprocess.Popen[bytes]]:
    worker = start_worker(processes_)
    try:
        _wait_until_ready()
        yield worker
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:  # it would finish its work, which is not measured any more
            drill.kill(worker)


def _wait_until_ready() -> None:
    """Wait until the worker answers: its imports take seconds, and are not measured."""
    from pipeline.tasks.app import app

    for _ in range(READY_TRIES):
        if app.control.ping(timeout=0.5):
            return
    raise TimeoutError("the worker did not answer")


@contextmanager
def _servers() -> Iterator[None]:
    """Run a PostgreSQL and a Valkey for this benchmark, and delete them at the end."""
    from pipeline.local import servers
    from pipeline.settings import Settings

    chosen = Settings.from_env(os.environ)
    try:
        with servers.serve(chosen, name="a benchmark"):
            yield
    finally:
        servers.remove(chosen)


def _server_pids() -> dict[str, int]:
    from pipeline.local import servers
    from pipeline.settings import Settings

    found = servers.status(Settings.from_env(os.environ))
    return found.pids if found else {}
