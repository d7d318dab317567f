"""Run both systems for `pipeline sandbox` and `python -m sandbox`: a process for each, one JSON line when they answer, until
a signal.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from urllib.parse import urlsplit

from sandbox import serve
from sandbox.pipedrive import start

HULL_FACTORY = "sandbox.hull.app:create_app"
READY_TIMEOUT_S = 120.0
CHILD_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """What to run. A port of 0 takes a free one; `load` and `faults` are paths, for Pipedrive.

    `clock_factor` and `clock_behind_s` set how Pipedrive's time passes and where it starts; Hull's is the machine's.
    """

    persons: int = 1000
    organizations: int = 200
    users: int = 200
    accounts: int = 50
    seed: int = 1
    load: str | None = None
    faults: str | None = None
    pipedrive_port: int = 0
    hull_port: int = 0
    website: bool = True
    burst_limit: int | None = None
    daily_budget: int | None = None
    clock_factor: float = 1.0
    clock_behind_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The credentials of a sandbox, all derived from the seed."""

    api_token: str
    oauth_client_id: str
    oauth_client_secret: str
    hull_connector_id: str
    hull_secret: str

    @classmethod
    def from_seed(cls, seed: int) -> Credentials:
        """Derive the credentials of a sandbox; they are valid nowhere else."""

        def derived(name: str, length: int) -> str:
            return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:length]

        return cls(
            api_token=derived("api_token", 40),
            oauth_client_id=derived("oauth_client_id", 16),
            oauth_client_secret=derived("oauth_client_secret", 40),
            hull_connector_id=derived("hull_connector_id", 24),
            hull_secret=derived("hull_secret", 32),
        )


def run(options: SandboxOptions, *, announce: Callable[[str], None] | None = None) -> int:
    """Serve both systems until SIGTERM or SIGINT; 0 then, 1 when one of them did not start or ended.

    `announce` takes the JSON line, by default printed to standard output.
    """
    stopped = _Stopped()
    credentials = Credentials.from_seed(options.seed)
    running: list[serve.Running] = []
    try:
        pipedrive = serve.start(start.FACTORY, _pipedrive_options(options, credentials), port=options.pipedrive_port)
        running.append(pipedrive)
        hull = _start_hull(options, credentials)
        running.append(hull)
        for system in running:
            serve.wait_until_ready(system, timeout_s=READY_TIMEOUT_S)
        (announce or _print)(json.dumps(_described(pipedrive, hull, credentials)))
        return _wait(stopped, running)
    except (OSError, RuntimeError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 1
    finally:
        for system in running:
            system.stop()


def _pipedrive_options(options: SandboxOptions, credentials: Credentials) -> dict[str, object]:
    return {
        "seed": options.seed,
        "persons": options.persons,
        "organizations": options.organizations,
        "api_token": credentials.api_token,
        "client_id": credentials.oauth_client_id,
        "client_secret": credentials.oauth_client_secret,
        "burst_limit": options.burst_limit,
        "daily_budget": options.daily_budget,
        "clock_factor": options.clock_factor,
        "clock_behind_s": options.clock_behind_s,
        "firmographics": options.website,
        "load": options.load,
        "faults": options.faults,
    }


def _start_hull(options: SandboxOptions, credentials: Credentials) -> serve.Running:
    """Start Hull, which must know its own host and port: they are its organization."""
    port = options.hull_port or serve.free_port()
    made_from: dict[str, object] = {
        "seed": options.seed,
        "users": options.users,
        "accounts": options.accounts,
        "connector_id": credentials.hull_connector_id,
        "secret": credentials.hull_secret,
        "organization": f"127.0.0.1:{port}",
    }
    return serve.start(HULL_FACTORY, made_from, port=port)


def _described(pipedrive: serve.Running, hull: serve.Running, credentials: Credentials) -> dict[str, str]:
    return {
        "pipedrive_url": pipedrive.url,
        "api_token": credentials.api_token,
        "oauth_client_id": credentials.oauth_client_id,
        "oauth_client_secret": credentials.oauth_client_secret,
        "hull_url": hull.url,
        "hull_connector_id": credentials.hull_connector_id,
        "hull_secret": credentials.hull_secret,
        "hull_organization": urlsplit(hull.url).netloc,
    }


class _Stopped:
    """Whether a signal was received. No Event: its lock may be held by the very step that the signal handler interrupts."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True


def _wait(stopped: _Stopped, running: list[serve.Running]) -> int:
    """Wait for a signal, or for a system that ends by itself."""
    while not stopped.is_set:
        if any(system.process.poll() is not None for system in running):
            return 1
        time.sleep(CHILD_POLL_S)
    return 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
