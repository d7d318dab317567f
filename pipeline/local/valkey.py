"""The embedded Valkey: reached by its unix socket only, every write appended to a file that is flushed each second.

It never evicts: what does not fit is refused, since a broker that forgets is worse than one that complains.
"""

from __future__ import annotations

import signal
import socket
from urllib.parse import quote

from pipeline.local.binaries import Binaries
from pipeline.local.children import ChildProgram, Confinement
from pipeline.local.folders import Folders
from pipeline.local.processes import ENVIRONMENT, end_leftovers

NAME = "valkey"
_SHARED_DB, _BROKER_DB = 0, 1

_OPTIONS = {
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
_STOP_SIGNALS = ((signal.SIGTERM, 60.0),)


def url(folders: Folders) -> str:
    """Return the URL redis-py connects to."""
    return f"unix://{quote(str(folders.valkey_socket))}?db={_SHARED_DB}"


def broker_url(folders: Folders) -> str:
    """Return the URL for kombu; a separate database number separates queues and shared buckets."""
    return f"redis+socket://{quote(str(folders.valkey_socket))}?virtual_host={_BROKER_DB}"


def program(folders: Folders, binaries: Binaries) -> ChildProgram:
    """Make the data folder the first time, and return the server's program."""
    data = folders.make_for_server(NAME)
    places = ("--dir", str(data), "--unixsocket", str(folders.valkey_socket))
    options = [word for name, value in _OPTIONS.items() for word in (f"--{name}", value)]
    return ChildProgram(
        name=NAME,
        command=(str(binaries.valkey_server), *places, *options),
        environment=ENVIRONMENT,
        stop_signals=_STOP_SIGNALS,
        confinement=Confinement(
            folder=data,
            account=folders.account,
            log=folders.log(NAME),
            prepare=lambda: clear_leftovers(folders),
        ),
    )


def clear_leftovers(folders: Folders) -> None:
    """End and remove what only a crash leaves. Raises: EmbeddedError when an earlier server does not end."""
    end_leftovers(folders.servers / NAME, "valkey-server", _STOP_SIGNALS[0][0])
    folders.valkey_socket.unlink(missing_ok=True)


def is_ready(folders: Folders) -> bool:
    """Return whether it answers; while it reads its file it answers LOADING instead of PONG."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(folders.valkey_socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
