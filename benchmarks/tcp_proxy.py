"""A TCP proxy for fault drills: it can go silent, cut every connection, come back, or come back for new connections alone.

Silent means what a host that lost its power looks like: connections stay open, new ones are accepted, and no byte moves in
either direction. One thread per direction; loopback only.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

CHUNK = 65_536


class TcpProxy:
    """Forward connections on a free loopback port to `target`, a (host, port) pair or the path of a unix socket."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._dead: list[threading.Event] = []
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def silence(self) -> None:
        """Stop moving bytes; connections stay open and new ones are accepted."""
        self._flowing.clear()

    def restore(self) -> None:
        """Move bytes again, those that waited first."""
        self._flowing.set()

    def replace(self) -> None:
        """Serve new connections, and leave those that are open silent for good: another host took the dead one's address."""
        self._dead.append(self._flowing)
        self._flowing.clear()
        self._flowing = threading.Event()
        self._flowing.set()

    def cut(self) -> None:
        """Close every open connection; new ones are still served."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening and close every connection."""
        self._closed.set()
        for flowing in [*self._dead, self._flowing]:
            flowing.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        flowing = self._flowing
        flowing.wait()  # a silent host completes no handshake with what is behind it
        try:
            server = self._connect()
        except OSError:
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        there = threading.Thread(target=self._pump, args=(client, server, flowing), daemon=True)
        there.start()
        self._pump(server, client, flowing)
        there.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, str):
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(self._target)
            return server
        return socket.create_connection(self._target, timeout=10)

    def _pump(self, source: socket.socket, sink: socket.socket, flowing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            source.settimeout(None)
            while data := source.recv(CHUNK):
                flowing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
