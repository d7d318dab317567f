"""Read from /proc: CPU seconds of process trees, and the peak memory of the largest process."""

from __future__ import annotations

import os
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """Return the process and all its descendants."""
    below: dict[int, list[int]] = {}
    for pid in _all_pids():
        below.setdefault(_stat(pid)[1], []).append(pid)
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(below.get(found[-1], []))
    return found


def cpu_s(root: int) -> float:
    """Return the CPU seconds of a tree, with children that have ended."""
    return sum(sum(_stat(pid)[2]) for pid in tree(root)) / CLOCK_TICKS


def peak_mb(root: int) -> float:
    """Return the peak resident memory of the largest process of a tree, in MB."""
    return max(_status_kb(pid, "VmHWM") for pid in tree(root)) / 1024


def resident_mb(pid: int) -> float:
    """Return the resident memory of one process, in MB."""
    return _status_kb(pid, "VmRSS") / 1024


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> tuple[int, int, tuple[int, int, int, int]]:
    """Return (pid, parent, ticks); zeros for a process that has just ended."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return pid, 0, (0, 0, 0, 0)
    return pid, int(fields[1]), (int(fields[11]), int(fields[12]), int(fields[13]), int(fields[14]))


def _status_kb(pid: int, name: str) -> int:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
