"""Say whether the process of a container is healthy, whichever of ours it is: `health.py [PID]`, by default process 1.

intake, web and Flower answer over HTTP; workers and beat answer a ping through the broker. Exit 0: healthy, or a command that ends
by itself, such as `pipeline migrate`. Exit 1: no answer; one line names the process. Only the standard library is imported.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

HTTP_S = 5.0
PING_S = 5
COMMAND_S = 25.0
"""For the start of Celery's own command on a busy machine; below the time-out of the health check."""
FLOWER_PORT = "5555"


def main(pid: str = "1") -> int:
    """Check a process and return the exit code."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    probe = probe_of(words, socket.gethostname(), os.environ.get("FLOWER_PORT") or FLOWER_PORT)
    if probe is None:
        return 0
    if isinstance(probe, str):
        return _answers(probe)
    return _replies(probe)


def probe_of(words: Sequence[str], host: str, flower_port: str) -> str | list[str] | None:
    """Return the URL to fetch, the command to run, or None for a process that has no health check.

    words  the command line of the process; with an init before it, if the container has one
    """
    if "granian" in " ".join(words):
        return f"http://127.0.0.1:{_option(words, '--port', '8000')}/healthz"
    if "flower" in words:
        prefix = _option(words, "--url-prefix", "").strip("/")
        return f"http://127.0.0.1:{_option(words, '--port', flower_port)}/{prefix}{'/' if prefix else ''}healthcheck"
    if "worker" in words:
        return _ping(_option(words, "-n", "celery@%h").replace("%h", host))
    if "beat" in words:
        return _ping(f"celerybeat@{host}")
    return None


def _ping(node: str) -> list[str]:
    return ["celery", "-q", "-A", "pipeline", "inspect", "ping", "-d", node, "--timeout", str(PING_S)]


def _option(words: Sequence[str], name: str, default: str) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return default


def _answers(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=HTTP_S):  # noqa: S310 - this machine, http
            return 0
    except OSError as error:
        sys.stdout.write(f"{url} does not answer: {error}\n")
        return 1


def _replies(command: list[str]) -> int:
    try:
        done = subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=False)  # noqa: S603 - put together above
    except subprocess.TimeoutExpired:
        sys.stdout.write(f"{command[-3]} does not answer within {COMMAND_S:.0f} s\n")
        return 1
    if done.returncode:
        sys.stdout.write(f"{command[-3]} does not answer\n")
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
