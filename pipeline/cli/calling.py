"""How a command calls its operation: in this process, or in a running installation over HTTP."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

import click
import requests
import requests.auth
from pydantic import BaseModel, ValidationError

from db import job as jobs
from db.connector import Connector
from db.operator import Present
from db.session import transaction
from pipeline.cli.startup import open_database
from pipeline.domain.kinds import Role
from pipeline.jobs.runtime import run_job
from pipeline.operations.call import Call
from pipeline.operations.errors import ConnectorNotFound, OperationError
from pipeline.operations.registry import Download, Operation
from pipeline.settings import settings
from pipeline.sync.stage import StageFailed

A = TypeVar("A")
TIMEOUT_S: Final = (10.0, 120.0)
"""To connect, and for the answer: some operations call remote systems before they answer."""
CHUNK_BYTES: Final = 65_536
KEY: Final = re.compile("[A-Za-z0-9_-]{4,200}")


def operator_name() -> str:
    """Return the name of the command line's user in the audit log."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # KeyError up to Python 3.12: a container's user may have a number only
        user = f"user {os.getuid()}"
    return f"{user} (command line)"


class Caller(Protocol):
    """Where operations are called."""

    def call(self, declared: Operation[Any, A], request: BaseModel) -> A:
        """Run an operation. Raises OperationError."""


class LocalCaller:
    """Calls operations in this process, as an admin: the user of the command line can read the database anyway."""

    def __init__(self) -> None:
        given = settings()
        self._embedded_in = given.data_dir if given.database_url is None else None
        open_database()
        self._caller = Present(id=0, name=operator_name(), role=Role.ADMIN)

    def call(self, declared: Operation[Any, A], request: BaseModel) -> A:
        with self._database_named():
            return declared(Call(caller=self._caller), request)

    def find_connector(self, id_or_name: str) -> Connector:
        """Return a connector by its id or name. Raises OperationError."""
        with self._database_named():
            return Call(caller=self._caller).find_connector(id_or_name)

    @contextmanager
    def _database_named(self) -> Iterator[None]:
        """Add the database to the error of an unknown connector if it is the embedded one: DATABASE_URL may be forgotten."""
        try:
            yield
        except ConnectorNotFound as error:
            if self._embedded_in is None:
                raise
            message = (
                f"{error.message.rstrip('.')} in the embedded database in {self._embedded_in}; DATABASE_URL is not set."
            )
            next_step = f"{error.next_step} Or set DATABASE_URL or DATA_DIR as for the other processes."
            raise ConnectorNotFound(message, next_step) from None


def work_on(caller: Caller, kind: str, key: str) -> None:
    """Do one step of a job in this process, unless a worker does it: a small job then needs no worker.

    Does nothing for a remote installation, which has its own workers.
    """
    if not isinstance(caller, LocalCaller):
        return
    with transaction() as session:
        job_id = jobs.find_open(session, kind, key)
    if job_id is not None:
        with suppress(StageFailed):
            run_job(job_id, None)


class RemoteCaller:
    """Calls operations through `/api/v1` of a running installation, with the rights of the key."""

    def __init__(self, url: str, key_file: Path) -> None:
        self._base = f"{url.rstrip('/')}/api/v1"
        self._session = requests.Session()
        self._session.auth = _KeyAuth(_read_key(key_file))

    def call(self, declared: Operation[Any, A], request: BaseModel) -> A:
        given = request.model_dump(mode="json", exclude_unset=True)
        path = declared.path
        for name in declared.path_fields:
            path = path.replace(f"<{name}>", quote(str(given[name]), safe=""))
        parts = {name: declared.part_of(name) for name in declared.request.model_fields}
        try:
            response = self._session.request(
                declared.method,
                f"{self._base}{path}",
                params={name: value for name, value in given.items() if parts[name] == "query"},
                json={name: value for name, value in given.items() if parts[name] == "body"} or None,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                stream=declared.answer is Download,
            )
        except requests.RequestException as error:
            message = f"{self._base} does not answer: {type(error).__name__}."
            next_step = "Check --url, and that the installation runs."
            raise OperationError(HTTPStatus.SERVICE_UNAVAILABLE, "unreachable", message, next_step) from None
        if response.status_code != HTTPStatus.OK:
            raise _problem(response)
        if declared.answer is Download:
            return _download(response)  # type: ignore[return-value]  # the answer of this operation
        try:
            answer: A = declared.answer.model_validate_json(response.content)  # type: ignore[attr-defined]  # a model
        except ValidationError:
            message = "This version of the program cannot read the answer."
            raise OperationError(
                HTTPStatus.BAD_GATEWAY, "unreadable", message, "Use the version of the installation."
            ) from None
        return answer


class _KeyAuth(requests.auth.AuthBase):
    """Sends the key. An entry of `.netrc` replaces an Authorization header of the session, but not this."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _read_key(key_file: Path) -> str:
    """Return the key in a file, or in standard input for `-`. Raises OperationError, which does not repeat the content."""
    try:
        with click.open_file(str(key_file), encoding="ascii") as file:
            key: str = file.read().strip()
    except (OSError, UnicodeDecodeError):
        key = ""
    if not KEY.fullmatch(key):
        message = f"{'Standard input' if str(key_file) == '-' else key_file} does not hold an API key."
        next_step = "Write the whole key into it, as the console showed it, and nothing else."
        raise OperationError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_key_file", message, next_step)
    return key


def _problem(response: requests.Response) -> OperationError:
    """Return the installation's error, or an error about an answer that does not come from an installation."""
    try:
        problem = response.json()
        status = HTTPStatus(response.status_code)
        return OperationError(
            status, problem["error"], problem["message"], problem["next_step"], list(problem["mistakes"])
        )
    except (ValueError, KeyError, TypeError):
        message = f"{response.url.partition('?')[0]} answered with status {response.status_code}."
        return OperationError(HTTPStatus.BAD_GATEWAY, "unreadable", message, "Check --url.")


def _download(response: requests.Response) -> Download:
    disposition = response.headers.get("Content-Disposition", "")
    name = Path(disposition.partition('filename="')[2].rstrip('"')).name or "download"
    chunks: Iterator[bytes] = response.iter_content(CHUNK_BYTES)
    return Download(name, response.headers.get("Content-Type", ""), chunks)
