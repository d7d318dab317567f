"""A running installation with an admin's key, and the command line in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

from db.operator import Operator, present
from db.session import transaction
from pipeline.accounts import operators
from pipeline.domain.kinds import Role
from tests.command_line import run
from tests.integration.console.conftest import NO_HASH, app
from tests.system import SyncSystem

__all__ = ["app", "run"]


@dataclass(frozen=True, slots=True)
class Installation:
    """A running installation: its address, and a file with an admin's key."""

    url: str
    key_file: Path


@pytest.fixture
def installation(app: Flask, system: SyncSystem, tmp_path: Path) -> Iterator[Installation]:
    assert system
    with transaction() as session:
        operator = Operator(name="admin@acme.test", password_hash=NO_HASH, role=Role.ADMIN)
        session.add(operator)
        session.flush()
        owner = present(operator)
    key_file = tmp_path / "api.key"
    key_file.write_text(f"{operators.create_key(owner, 'remote')}\n")
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Installation(f"http://127.0.0.1:{server.server_port}", key_file)
    server.shutdown()
    thread.join()
    server.server_close()
