"""The embedded Valkey: reached by its unix socket only, every write appended to a file that is flushed each second.

It never evicts: what does not fit is refused, since a broker that forgets is worse than one that complains.
"""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from urllib.parse import quote

from pipeline.embedded.binaries import Binaries
from pipeline.embedded.folders import Folders
from pipeline.embedded.process import Server

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
    """Return the URL kombu connects to; a database of its own keeps queues and shared buckets apart."""
    return f"redis+socket://{quote(str(folders.valkey_socket))}?virtual_host={_BROKER_DB}"


def prepare(folders: Folders, binaries: Binaries) -> Server:
    """Make the data folder the first time, clear what a crash left behind, and describe the server."""
    data = folders.make_for_server(NAME)
    with suppress(FileNotFoundError):
        folders.valkey_socket.unlink()
    places = ("--dir", str(data), "--unixsocket", str(folders.valkey_socket))
    options = [word for name, value in _OPTIONS.items() for word in (f"--{name}", value)]
    return Server(
        name=NAME,
        command=(str(binaries.valkey_server), *places, *options),
        folder=data,
        stop_signals=_STOP_SIGNALS,
        is_ready=lambda: is_ready(folders),
    )


def is_ready(folders: Folders) -> bool:
    """Say whether it answers; while it reads its file back it says LOADING instead of PONG."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(folders.valkey_socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
