"""The programs to run, with their commands and environments.

Workers: a node for `live`, one for `control` and one for `bulk`, so that a full fetch does not delay webhooks, and a
slow remote system does not delay ticks and alerts.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipeline.local.children import ChildProgram
from pipeline.settings import SANDBOX_FILE, Settings, make_data_dir, unwritable

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened to
USUAL_PORT, USUAL_INTAKE_PORT, USUAL_FLOWER_PORT = 8080, 8081, 5555
LIVE_PROCESSES, CONTROL_PROCESSES, BULK_PROCESSES = 4, 1, 2
"""More `live` than one connector may use (LIVE_AT_ONCE): stalled reads of one connector do not delay others."""
CONNECTIONS = 16_384
"""Maximum connections of granian; an idle one is closed after 30 s."""
LIVE_NICENESS, BULK_NICENESS = 5, 15
"""Priorities on one machine: incoming requests are answered first, then changes are processed,
then fetches.
"""
ROOT_IS_FINE = "ignore:You're running the worker with superuser privileges"
"""Only json is accepted from the broker, which is what Celery's warning to root is about."""
SECRETS: Final = (
    "DATABASE_URL",
    "REDIS_URL",
    "BROKER_URL",
    "SECRET_KEYS",
    "PIPEDRIVE_CLIENT_SECRET",
    "ALERT_WEBHOOK_URL",
    "SMTP_PASSWORD",
    "FLOWER_BASIC_AUTH",
    "METRICS_TOKEN",
)
"""Environment variables with secrets."""
WORK: Final = frozenset({"DATABASE_URL", "REDIS_URL", "BROKER_URL", "SECRET_KEYS", "PIPEDRIVE_CLIENT_SECRET"})
"""Secrets of all workers."""
METRICS: Final = frozenset({"METRICS_TOKEN"})
"""Additional secrets of intake and the web process, which serve metrics."""
ALERTS: Final = WORK | {"ALERT_WEBHOOK_URL", "SMTP_PASSWORD"}
"""Secrets of the web process and the control worker, which send alerts."""
BROKER: Final = frozenset({"BROKER_URL"})
"""Secrets of beat and Flower."""
SANDBOX_KEY_PATH = "/__sandbox__/public-key"
SIZES = ("persons", "organizations", "users", "accounts")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPlace:
    """The ports and the sizes of the sandbox."""

    pipedrive_port: int
    hull_port: int
    sizes: Mapping[str, int]


class PortTaken(Exception):
    """A port chosen by the user is in use."""


def choose_port(name: str, wanted: int, usual: int) -> tuple[int, str]:
    """Return (port, note): a default port that is in use is replaced by a free one.

    Raises: PortTaken for a port chosen by the user.
    """
    if _is_free(wanted):
        return wanted, ""
    if wanted != usual:
        raise PortTaken(f"{name} {wanted} is in use; choose another, or end what listens there")
    port = free_port()
    return port, f"port {wanted} is in use; {name} is {port} instead"


LOW_PORTS = range(20_000, 32_000)
"""Below the ephemeral ports of the system (RFC 6335, and Linux from 32768 on): a free port in this range is not used by
another program's outgoing connection before our process has started.
"""


def free_port() -> int:
    """Return a port of this machine that no process listens on. Raises: OSError if none was found in many attempts."""
    for port in random.sample(LOW_PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise OSError("no free port was found")


def facing_sandbox(chosen: Settings, announced: Mapping[str, str]) -> Settings:
    """Return the settings of processes that use the sandbox instead of the real systems, with its OAuth app.

    announced  the sandbox's output
    """
    organization = announced["hull_organization"]
    return chosen.replace(
        pipedrive_client_id=announced["oauth_client_id"],
        pipedrive_client_secret=announced["oauth_client_secret"],
        pipedrive_oauth_url=announced["pipedrive_url"],
        pipedrive_api_url=announced["pipedrive_url"],
        hull_protocol="http",
        hull_firehose_url=f"{announced['hull_url']}/",
        hull_organizations=(*chosen.hull_organizations, organization),
        hull_key_hosts=(*chosen.hull_key_hosts, organization),
        hull_key_path=SANDBOX_KEY_PATH,
        hull_export_hosts=(*chosen.hull_export_hosts, organization),
    )


def sandbox_program(chosen: Settings, sandbox: SandboxPlace) -> ChildProgram:
    sizes = [part for name in SIZES if name in sandbox.sizes for part in (f"--{name}", str(sandbox.sizes[name]))]
    ports = ["--pipedrive-port", str(sandbox.pipedrive_port), "--hull-port", str(sandbox.hull_port)]
    command = [sys.executable, "-m", "sandbox", "--json", *ports, *sizes]
    return ChildProgram(name="sandbox", command=command, environment=environment(chosen, secrets=()))


def pipeline_programs(chosen: Settings, *, host: str, flower_login: str) -> list[ChildProgram]:
    """Return the pipeline's own processes. All except beat could run several times."""
    celery = [sys.executable, "-m", "celery", "-q", "-A", "pipeline"]
    quiet = ["--without-mingle", "--without-gossip"]
    flower_url = f"http://{LOOPBACK}:{chosen.flower_port}"
    given = {"FLOWER_BASIC_AUTH": flower_login, "FLOWER_URL": flower_url}
    with_flower = {**given, **dict.fromkeys((f"{name}_FILE" for name in given), None)}
    flower = [
        *celery,
        "flower",
        f"--address={LOOPBACK}",
        f"--port={chosen.flower_port}",
        "--url-prefix=flower",
        "--logging=error",
    ]
    return [
        ChildProgram(
            name="intake",
            command=served("intake", host, chosen.intake_port),
            environment=environment(chosen, secrets=WORK | METRICS),
        ),
        ChildProgram(
            name="web",
            command=served("app", host, chosen.port),
            environment={**environment(chosen, secrets=ALERTS | METRICS), **with_flower},
        ),
        _worker("live", LIVE_PROCESSES, [*celery, "worker", *quiet], environment(chosen), niceness=LIVE_NICENESS),
        _worker(
            "control",
            CONTROL_PROCESSES,
            [*celery, "worker", *quiet],
            environment(chosen, secrets=ALERTS),
            niceness=LIVE_NICENESS,
        ),
        _worker("bulk", BULK_PROCESSES, [*celery, "worker", *quiet], environment(chosen), niceness=BULK_NICENESS),
        ChildProgram(
            name="beat",
            command=[*celery, "beat", "--loglevel", "warning"],
            environment=environment(chosen, secrets=BROKER),
        ),
        ChildProgram(name="flower", command=flower, environment={**environment(chosen, secrets=BROKER), **with_flower}),
    ]


def served(module: str, host: str, port: int) -> list[str]:
    """Return the command that serves `pipeline.web.MODULE`."""
    return [
        sys.executable, "-m", "granian", "--interface", "rsgi", "--http", "1", "--no-ws",
        "--factory", f"pipeline.web.{module}:create_server", "--host", host, "--port", str(port),
        "--backpressure", str(CONNECTIONS), "--log-level", "warning", "--workers-kill-timeout", "3",
        "--respawn-failed-workers",
    ]  # fmt: skip


def environment(chosen: Settings, *, secrets: Collection[str] = WORK) -> dict[str, str | None]:
    """Return the chosen settings as environment variables, so that every process has the same ones.

    secrets  the SECRETS that the process gets; it gets neither the value nor the file of the others
    """
    given_names = {
        "DATA_DIR": str(chosen.data_dir),
        "DATABASE_URL": chosen.database_url,
        "REDIS_URL": chosen.redis_url,
        "BROKER_URL": chosen.broker_url,
        "SECRET_KEYS": ",".join(chosen.secret_keys),
        "PUBLIC_URL": chosen.public_url,
        "PORT": str(chosen.port),
        "INTAKE_URL": chosen.intake_url,
        "INTAKE_PORT": str(chosen.intake_port),
        "FLOWER_PORT": str(chosen.flower_port),
        "PIPEDRIVE_CLIENT_ID": chosen.pipedrive_client_id,
        "PIPEDRIVE_CLIENT_SECRET": chosen.pipedrive_client_secret,
        "PIPEDRIVE_OAUTH_URL": chosen.pipedrive_oauth_url,
        "PIPEDRIVE_API_URL": chosen.pipedrive_api_url,
        "HULL_PROTOCOL": chosen.hull_protocol,
        "HULL_FIREHOSE_URL": chosen.hull_firehose_url,
        "HULL_ORGANIZATIONS": ",".join(chosen.hull_organizations),
        "HULL_KEY_HOSTS": ",".join(chosen.hull_key_hosts),
        "HULL_KEY_PATH": chosen.hull_key_path,
        "HULL_EXPORT_HOSTS": ",".join(chosen.hull_export_hosts),
    }
    from_files = dict.fromkeys((f"{name}_FILE" for name in given_names), None)
    kept_back = [name for name in SECRETS if name not in secrets]
    return {
        **given_names,
        **from_files,
        **dict.fromkeys(kept_back, None),
        **dict.fromkeys((f"{name}_FILE" for name in kept_back), None),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": ROOT_IS_FINE,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerLogin:
    """Flower's user and password: Flower can stop workers, so it always has a login.

    login  `user:password`
    where  where a person finds it: the file or the environment variable; never the password
    file   None if it is not in a file
    note   why it could not be stored, empty if it could
    """

    login: str = field(repr=False)
    where: str
    file: Path | None = None
    note: str = ""


def flower_login(chosen: Settings) -> FlowerLogin:
    """Return FLOWER_BASIC_AUTH, or a login that is created once and kept in DATA_DIR if that can be written."""
    if chosen.flower_basic_auth:
        return FlowerLogin(login=chosen.flower_basic_auth, where="FLOWER_BASIC_AUTH")
    path = chosen.data_dir / "flower.login"
    made = f"operator:{secrets.token_urlsafe(18)}"
    try:
        make_data_dir(chosen.data_dir)
        with suppress(FileNotFoundError):
            if ":" in (kept := path.read_text().strip()):
                return FlowerLogin(login=kept, where=str(path), file=path)
        _write_secret(path, f"{made}\n")
    except OSError as error:
        note = f"Flower's own password is a new one at every start: {unwritable(chosen.data_dir, error)}, or set FLOWER_BASIC_AUTH"
        return FlowerLogin(login=made, where="in the console, at /flower/", note=note)
    return FlowerLogin(login=made, where=str(path), file=path)


def keep_sandbox_credentials(data_dir: Path, announced: Mapping[str, str]) -> Path:
    """Write a file for people who want to add a connector to the sandbox themselves. Raises: OSError."""
    make_data_dir(data_dir)
    path = data_dir / SANDBOX_FILE
    _write_secret(path, json.dumps(dict(announced), indent=2) + "\n")
    return path


def running_sandbox(data_dir: Path) -> dict[str, str] | None:
    """Return the addresses of the sandbox of a running `pipeline up` with the same data; a killed one left its file."""
    try:
        announced: dict[str, str] = json.loads((data_dir / SANDBOX_FILE).read_text())
    except (OSError, ValueError):
        return None
    return None if _is_free(urlsplit(announced["pipedrive_url"]).port or 0) else announced


def _write_secret(path: Path, words: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(words)


def _worker(
    queue: str, processes: int, command: list[str], env: dict[str, str | None], *, niceness: int
) -> ChildProgram:
    node = [*command, "-n", f"{queue}@%h", "-Q", queue, "-c", str(processes), "--loglevel", "warning"]
    return ChildProgram(name=queue, command=node, environment=env, niceness=niceness)


def _is_free(port: int) -> bool:
    """Return whether a port is free. Web servers would silently share it, so it is bound here first."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
