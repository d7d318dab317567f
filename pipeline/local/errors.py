"""Errors of an embedded server, with the end of its log and the next step."""

from __future__ import annotations

from pathlib import Path

LOG_LINES = 12

_WRITABLE = "Set DATA_DIR to a folder that the account which runs this may write."
# Words in a log → what to do about them. The first that matches wins.
_NEXT_STEPS = (
    ("No space left", "Free some disk space (also in /dev/shm), then start again."),
    (
        "could not look up effective user ID",
        "PostgreSQL refuses an account without a name. Run as an account that /etc/passwd lists, or add it there.",
    ),
    (
        "database files are incompatible",
        "The data was made by another version of PostgreSQL. Install the dependencies the lock file names, or set "
        "DATA_DIR to a new folder.",
    ),
    ("Permission denied", _WRITABLE),
    ("Read-only file system", _WRITABLE),
    ("Operation not permitted", "Run as an ordinary account: this root may not act for another account."),
)
_ANY_STEP = "Read the log above; or set DATABASE_URL and REDIS_URL to servers of your own and start none here."


class EmbeddedError(Exception):
    """An embedded server cannot be started, reached or stopped. The text has the reason and the next step."""


def failed(what: str, detail: str = "", *, log: Path | None = None) -> EmbeddedError:
    """Return the error for a failure: what failed, its output, the end and path of the log, and the next step."""
    words = "\n".join(part for part in (detail.strip(), last_lines(log)) if part)
    step = next((step for sign, step in _NEXT_STEPS if sign in f"{what}\n{words}"), _ANY_STEP)
    quoted = "".join(f"\n    {line}" for line in words.splitlines())
    where = f"\n  Log: {log}" if log else ""
    return EmbeddedError(f"{what}{quoted}{where}\n  Next step: {step}")


def last_lines(log: Path | None) -> str:
    """Return the end of a log; empty without a log."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])
