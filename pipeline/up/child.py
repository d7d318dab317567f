"""Becomes another program that ends when its parent does: `python -m pipeline.up.child PROGRAM ARGUMENT …`.

Whoever supervises may be killed before it can stop anybody; the kernel then sends SIGTERM (Linux: prctl(2),
PR_SET_PDEATHSIG, kept across execve).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(command[0], command)  # noqa: S606 - our own commands, put together in `pipeline.up.places`


if __name__ == "__main__":
    main(sys.argv[1:])
