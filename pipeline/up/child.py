"""Becomes another program that ends when its parent does: `python -m pipeline.up.child NICENESS PROGRAM ARGUMENT …`.

Standard input tells what differs in its environment, as JSON: name → value, or null for a name that must not be there.
Secrets thus never stand in a list of processes. Whoever supervises may be killed before it can stop anybody; the kernel
then sends SIGTERM (Linux: prctl(2), PR_SET_PDEATHSIG, kept across execve).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(niceness: int, command: list[str]) -> None:
    os.nice(niceness)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    for name, value in json.load(sys.stdin).items():
        if value is None:
            os.unsetenv(name)
        else:
            os.putenv(name, value)
    os.execv(command[0], command)  # noqa: S606 - our own commands, put together in `pipeline.up.places`


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
