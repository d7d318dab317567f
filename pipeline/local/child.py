"""Replace this process by a program that ends when its parent ends: `python -m pipeline.local.child PARENT PROGRAM ARGUMENT …`.

Standard input has the rest as JSON (`pipeline.local.children` writes it), so that secrets are never
part of a process list. A parent may be killed before it can stop its children; the kernel then sends the program its
mildest stop signal (Linux: prctl(2), PR_SET_PDEATHSIG, kept across execve, cleared by a change of account).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html


def main(parent: int, command: list[str], given: dict[str, Any]) -> None:
    """Apply what is given, and run the program.

    given  niceness; signal; environment: name → value, or null to remove a name; keeps_environment: whether all other
           names stay; umask, folder and account ([uid, gid]) unless they are null
    """
    os.nice(given["niceness"])
    if given["umask"] is not None:
        os.umask(given["umask"])
    if given["account"] is not None:
        uid, gid = given["account"]
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, given["signal"])
    if os.getppid() != parent:  # it died before the request was made
        return
    if given["folder"] is not None:
        os.chdir(given["folder"])
    if not given["keeps_environment"]:
        os.execve(command[0], command, given["environment"])  # noqa: S606 - our own commands, put together in this package
    for name, value in given["environment"].items():
        if value is None:
            os.unsetenv(name)
        else:
            os.putenv(name, value)
    os.execv(command[0], command)  # noqa: S606 - as above


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:], json.load(sys.stdin))
