"""Helpers of the benchmarks: queries, the sandbox's exports and controls, notifications, waiting, processes and figures.

Imports of the pipeline are inside the functions, because a benchmark sets the environment first.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import requests
from sqlalchemy import text

from pipeline.local.interrupts import Interrupts

if TYPE_CHECKING:
    from benchmarks.stage import Stage
    from pipeline.local.children import Children
    from pipeline.settings import Settings

TIMEOUT_S = 300
SECRET_KEY = "cGlwZWxpbmUtYmVuY2htYXJrcy1vbmx5LTAxMjM0NTY="
LEFT = """
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new') + (SELECT count(*) FROM changes)
         + (SELECT count(*) FROM batches WHERE state IN ('ready', 'running', 'waiting'))
         + (SELECT count(*) FROM runs WHERE state = 'running')"""
"""How much work is left."""
UNRESOLVED = "SELECT count(*) FROM id_mappings WHERE hull_id IS NULL AND state <> 'conflict'"
"""How many records have no Hull id yet."""


def rows(query: str, **values: Any) -> Sequence[Any]:
    """Return the rows of a query to the pipeline's database."""
    from db.session import transaction

    with transaction() as session:
        return session.execute(text(query), values).all()


def scalar(query: str, **values: Any) -> Any:
    """Return the first column of the first row; None without a row."""
    found = rows(query, **values)
    return found[0][0] if found else None


def left_to_do(*more: str) -> int:
    """Return how much work is left; `more` are further queries that count."""
    return sum(int(scalar(query)) for query in (LEFT, *more))


def execute(statement: str, **values: Any) -> None:
    """Execute a statement in the pipeline's database."""
    from db.session import transaction

    with transaction() as session:
        session.execute(text(statement), values)


def change_settings(connector_key: int, **changes: Any) -> None:
    """Change some settings of a connector."""
    from db import connector as connectors
    from db.session import transaction

    with transaction() as session:
        current = connectors.settings_in_force(session, connector_key).document
        connectors.add_settings(session, connector_key, current | changes, author="benchmark")


def export(sandbox_url: str, entity: str) -> Iterator[dict[str, Any]]:
    """Yield every record of one side of the sandbox."""
    return lines(f"{sandbox_url}/__sandbox__/export?entity={entity}")


def lines(url: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of an answer with one JSON object per line."""
    with requests.get(url, stream=True, timeout=TIMEOUT_S) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line:
                yield orjson.loads(line)


def control(sandbox_url: str, name: str, body: Any = None) -> Any:
    """Return what a control of the sandbox shows, or set it to `body`."""
    url = f"{sandbox_url}/__sandbox__/{name}"
    answer = requests.get(url, timeout=TIMEOUT_S) if body is None else requests.post(url, json=body, timeout=TIMEOUT_S)
    answer.raise_for_status()
    return answer.json()


def custom_text_field(running: Stage) -> str:
    """Return the code of a custom text field of Persons."""
    answer = requests.get(
        f"{running.pipedrive_url}/api/v2/personFields?limit=500",
        headers={"x-api-token": running.credentials.api_token},
        timeout=TIMEOUT_S,
    )
    fields = answer.json()["data"]
    return next(
        str(each["field_code"]) for each in fields if each["is_custom_field"] and each["field_type"] == "varchar"
    )


def user_message(user: Mapping[str, Any], before: str | None = None) -> dict[str, Any]:
    """Return Hull's message about a User with a changed name."""
    return {"user": user, "account": {}, "segments": [], "changes": {"user": {"name": [before, user["name"]]}}}


def keep_notification(
    connector_key: int, notification_id: str, messages: Sequence[Mapping[str, Any]], **more: Any
) -> None:
    """Store a notification as the web process does, without waking a worker."""
    from db import delivery as deliveries
    from db.session import transaction

    body = {"notification_id": notification_id, "channel": "user:update", "messages": messages, **more}
    with transaction() as session:
        deliveries.keep_delivery(session, connector_key, "hull", notification_id, orjson.dumps(body))


def notify(connector_key: int, notification_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
    """Store a notification, and wake a worker."""
    from pipeline.tasks import canvases

    keep_notification(connector_key, notification_id, messages)
    canvases.wake_control("dispatch")


def add_users(running: Stage, emails: Sequence[str], **attributes: str) -> list[dict[str, Any]]:
    """Create Users in the sandbox's Hull, each with its e-mail as name by default; return Hull's reports of them."""
    from db.session import transaction
    from pipeline.wiring import open_connector

    with transaction() as session:
        hull = open_connector(session, running.connector_key).hull
    messages = [hull.writer().user_traits({"email": email}, {"name": email, **attributes}) for email in emails]
    hull.post_batches(messages, size=500)
    wanted = set(emails)
    return [user for user in export(running.hull_url, "user") if user.get("email") in wanted]


def wait_until(condition: Callable[[], Any], timeout_s: float, message: str, *, every_s: float = 0.2) -> None:
    """Return when the condition is true. Raises: TimeoutError with the message."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{message} within {timeout_s:g} s")
        time.sleep(every_s)


def wait_for_url(url: str, timeout_s: float = 60.0) -> None:
    """Return when an address answers; `/healthz` must answer 200. Raises: TimeoutError."""

    def answers() -> bool:
        with suppress(requests.RequestException):
            answer = requests.get(url, timeout=10)
            return answer.ok or not url.endswith("/healthz")
        return False

    wait_until(answers, timeout_s, f"{url} did not answer")


@contextmanager
def own_servers(folder: Path, **environment: str) -> Iterator[Settings]:
    """Run a PostgreSQL and a Valkey with their data in `folder`, and point the environment there."""
    for name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    os.environ |= {
        "DATA_DIR": str(folder),
        "SECRET_KEYS": SECRET_KEY,
        "PIPEDRIVE_API_URL": "http://127.0.0.1:9",
        **environment,
    }
    from pipeline.local import servers
    from pipeline.settings import Settings

    chosen = Settings.from_env(os.environ)
    try:
        with servers.serve(chosen, name="a benchmark") as found:
            yield found
    finally:
        servers.remove(chosen)


@contextmanager
def pipeline_processes(running: Stage, names: Callable[[str], bool]) -> Iterator[Children]:
    """Run the processes of `make up` with these names instead of the stage's worker."""
    os.killpg(running.roots["workers"], signal.SIGKILL)
    children = new_children()
    try:
        start_programs(children, names)
        yield children
    finally:
        children.stop()


def new_children() -> Children:
    """Return a supervisor that prints only its own lines."""
    from pipeline.local.children import SUPERVISOR, Children

    return Children(lambda name, line: print(f"{name} | {line}") if name == SUPERVISOR else None)


def start_programs(children: Children, names: Callable[[str], bool]) -> None:
    """Start the pipeline's own programs with these names."""
    from pipeline.local import programs
    from pipeline.settings import settings

    for program in programs.pipeline_programs(settings(), host=programs.LOOPBACK, flower_login=""):
        if names(program.name):
            children.start(program)


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own. DRILL_VERBOSE shows its output."""
    output = None if os.environ.get("DRILL_VERBOSE") else subprocess.DEVNULL
    return subprocess.Popen(command, start_new_session=True, stdout=output, stderr=output)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def ended_by_signals() -> Iterator[Interrupts]:
    """Let SIGTERM and Ctrl-C end the block, so that it ends its processes; the exit code is 143 then."""
    try:
        yield Interrupts()
    except KeyboardInterrupt:
        raise SystemExit(143) from None


def show(figures: Mapping[str, Any], title: str = "", *, as_json: bool = False) -> None:
    """Print figures as JSON or as a list."""
    if as_json:
        print(json.dumps(figures, default=str), flush=True)
        return
    listed = [f"  {name:28} {value}" for name, value in figures.items()]
    print("\n".join([*([f"\n{title}"] if title else []), *listed]), flush=True)
