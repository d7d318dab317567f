"""Run one stateful WSGI app in an operating-system process of its own.

The app is made by a factory, given by its import string (`package.module:function`) and keyword arguments. Each system of
the sandbox keeps its state in memory, so there is exactly one worker, with a few threads. Granian was measured against
werkzeug's threaded server on two shared cores, keep-alive, 1 MB pages and small POSTs: 1700 pages and 2600 POSTs a second
against 770 and 1180; either stops within 40 ms of SIGTERM.
"""

from __future__ import annotations

import argparse
import ctypes
import http.client
import importlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

THREADS = 4
READY_POLL_S = 0.02
STOP_TIMEOUT_S = 1.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A served app: where it answers, and the process to stop."""

    url: str
    process: subprocess.Popen[bytes]
    reservation: socket.socket

    def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL if it still runs after `STOP_TIMEOUT_S`."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reservation.close()


def start(
    factory: str, options: Mapping[str, object], *, host: str = "127.0.0.1", port: int = 0, threads: int = THREADS
) -> Running:
    """Start `factory(**options)` in a process of its own and return; `wait_until_ready` waits for it.

    Shape:  `options` must survive JSON. `port` 0 takes a free one. `threads` answer side by side; a slow answer holds one.
    Raises: OSError when the port is taken.
    """
    reservation = _reserve(host, port)
    port = reservation.getsockname()[1]
    command = [sys.executable, "-m", "sandbox.serve", factory, json.dumps(options), "--host", host, "--port", str(port)]
    command += ["--threads", str(threads)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 (our own code)
    return Running(url=f"http://{host}:{port}", process=process, reservation=reservation)


def free_port(host: str = "127.0.0.1") -> int:
    """Find a free port, for an app that must know its own address."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_until_ready(running: Running, *, timeout_s: float = 60.0, path: str = "/__sandbox__/stats") -> None:
    """Return once the app answers `path`, whatever the status.

    Raises: RuntimeError when its process ended instead, TimeoutError when it stayed silent.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise RuntimeError(f"{running.url} did not start: its process ended with {running.process.returncode}")
        if _answers(running.reservation.getsockname(), path, deadline - time.monotonic()):
            return
        time.sleep(READY_POLL_S)
    raise TimeoutError(f"{running.url} did not answer within {timeout_s:.0f} s")


def serve(factory: str, options: Mapping[str, object], *, host: str, port: int, threads: int = THREADS) -> None:
    """Serve `factory(**options)` from this process until SIGTERM or SIGINT; prints nothing."""
    _die_with_parent()
    server = Granian(
        factory,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        workers=1,
        blocking_threads=threads,
        workers_kill_timeout=1,
        log_enabled=False,
    )
    server.serve(target_loader=partial(_load, factory, dict(options)), wrap_loader=False)


def _load(factory: str, options: dict[str, object]) -> WsgiApp:
    """Make the app, in the worker process, so that its state lives there and nowhere else."""
    _die_with_parent()
    module, _, name = factory.partition(":")
    app: WsgiApp = getattr(importlib.import_module(module), name)(**options)
    return app


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent ends, so that a killed test run leaves no server behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _reserve(host: str, port: int) -> socket.socket:
    """Hold `port` while the server lives.

    Granian binds with SO_REUSEPORT, so a second server on the same port would not fail but silently take half of the
    requests. The first, plain bind finds that out; the second, shared one keeps the port from being handed to others.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        port = probe.getsockname()[1]
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reservation.bind((host, port))
    return reservation


def _answers(address: tuple[str, int], path: str, timeout_s: float) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=max(timeout_s, 0.1))
    try:
        connection.request("GET", path)
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox.serve")
    parser.add_argument("factory")
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    serve(arguments.factory, arguments.options, host=arguments.host, port=arguments.port, threads=arguments.threads)


if __name__ == "__main__":
    main()
