"""The embedded PostgreSQL: one cluster with one database, reached by its unix socket only.

The socket needs no password: its folder is closed to all accounts but the servers' own.
Durability is not reduced; the sizes suit a small machine.
"""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from pipeline.local.binaries import Binaries
from pipeline.local.children import ChildProgram, Confinement
from pipeline.local.errors import EmbeddedError
from pipeline.local.folders import Folders, require_space
from pipeline.local.processes import ENVIRONMENT, end_leftovers, run

NAME = "postgres"
DATABASE = "pipeline"
ROLE = "pipeline"
FREE_MB = 300  # a new cluster takes 40 MB and its first write-ahead logs

_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "pglz",  # this build lacks lz4 and zstd
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # Statements and errors of sessions contain values of records: the log has only starts, stops and crashes.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
# Sort by code point, yet know the upper and lower case of every script (PostgreSQL 17 and later:
# https://www.postgresql.org/docs/18/locale.html#LOCALE-PROVIDERS).
_LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
# https://www.postgresql.org/docs/18/server-shutdown.html
_STOP_SIGNALS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0))


def url(folders: Folders) -> str:
    """Return the URL SQLAlchemy connects to."""
    return f"postgresql+psycopg2://{ROLE}@/{DATABASE}?host={quote(str(folders.sockets))}"


def program(folders: Folders, binaries: Binaries) -> ChildProgram:
    """Make the cluster the first time, and return the server's program.

    Call it only while no server of these folders runs.
    """
    data = folders.servers / NAME
    if data.exists():
        _check_owner(data, folders)
    else:
        _make_cluster(data, folders, binaries)
    options = [f"--{name}={value}" for name, value in _OPTIONS.items()]
    return ChildProgram(
        name=NAME,
        command=(str(binaries.postgres), "-D", str(data), "-k", str(folders.sockets), *options),
        environment=ENVIRONMENT,
        stop_signals=_STOP_SIGNALS,
        confinement=Confinement(
            folder=data,
            account=folders.account,
            log=folders.log(NAME),
            prepare=lambda: clear_leftovers(folders),
        ),
    )


def is_ready(folders: Folders) -> bool:
    """Return whether it accepts connections: the eighth line of postmaster.pid says so, and the socket is listened to.

    Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/utils/pidfile.h
    """
    try:
        lines = (folders.servers / NAME / "postmaster.pid").read_text().splitlines()
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(folders.postgres_socket))
    except OSError:
        return False
    return True


def clear_leftovers(folders: Folders) -> None:
    """End and remove what only a crash leaves.

    PostgreSQL would take a stranger that was given the old server's process id for a running server.
    Raises: EmbeddedError when processes of an earlier server do not end.
    """
    data = folders.servers / NAME
    end_leftovers(data, "postgres", _STOP_SIGNALS[0][0])
    for path in (data / "postmaster.pid", folders.postgres_socket, Path(f"{folders.postgres_socket}.lock")):
        path.unlink(missing_ok=True)


def _make_cluster(data: Path, folders: Folders, binaries: Binaries) -> None:
    """Create a cluster next to its place and move it there when it is complete, so that a crash leaves no partial one."""
    require_space(folders.servers, FREE_MB, "a database")
    draft = folders.servers / f"{NAME}.new"
    shutil.rmtree(draft, ignore_errors=True)
    folders.make_for_server(draft.name)
    # Not flushed file by file (seconds on a slow disk): a machine that fails within the next half minute loses a
    # database that is still empty.
    settings = ("--username", ROLE, "--auth=trust", "--no-sync", "--no-instructions", *_LOCALE)
    run((str(binaries.initdb), "-D", str(draft), *settings), folders, draft)
    run(
        (str(binaries.postgres), "--single", "-D", str(draft), "-c", "exit_on_error=on", "-c", "fsync=off", "postgres"),
        folders,
        draft,
        text_in=f"CREATE DATABASE {DATABASE};\n",
    )
    draft.rename(data)


def _check_owner(data: Path, folders: Folders) -> None:
    found = data.stat().st_uid
    if folders.account and found != folders.account.uid:
        raise EmbeddedError(
            f"The database in {data} belongs to the account with number {found}, and root cannot run it.\n"
            "  Next step: run as that account, or set DATA_DIR to another folder."
        )
