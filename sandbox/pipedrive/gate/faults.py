"""Misbehave on purpose: the rules. What each kind does to an answer is in `spoiling`.

In: rules (path pattern, method, which of the matching requests, kind). Out: the rule that is due. Rules are set in process
(`app.faults.add(...)`), by POST /__sandbox__/faults, or from a file (`load`); the first rule that is due wins.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal[
    "status", "html", "empty", "not_json", "gzip_bomb", "429_burst", "429_daily", "slow",
    "truncated", "repeat_page", "rewrite", "cut", "drip",
]  # fmt: skip
_USUAL: dict[str, dict[str, Any]] = {
    "html": {"status": 403},
    "empty": {"status": 200},
    "repeat_page": {"count": None},
    "slow": {"seconds": 5.0},
    "drip": {"seconds": 1.0},
}
_ON_THE_REAL_ANSWER = {"truncated", "repeat_page", "rewrite", "cut", "drip"}


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule.

    `path` is searched for in the request's path, and `query` in its query string; `method` None is any. The rule lets `skip`
    matching requests pass, then spoils `count` of them (None: all). `late` carries the request out before spoiling its
    answer, so that a create whose answer is lost did happen. `headers` go on the spoilt answer.

    status      `status` with `body`             slow         waits `seconds`, then carries on
    html        `status` with a page             truncated    half the answer, as if it were whole
    empty       `status` without a body          cut          half the answer, then the connection breaks
    not_json    200 with something else          drip         the answer, `seconds` between any two bytes
    gzip_bomb   `size` bytes, packed small       rewrite      the answer with the first match of `find` become `put`
    429_burst, 429_daily: as those limits say    repeat_page  the same marker for ever
    """

    path: str
    kind: Kind
    method: str | None = None
    query: str = ""
    skip: int = 0
    count: int | None = 1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    late: bool = False
    seconds: float = 0.0
    size: int = 200_000_000
    find: str = "^"
    put: str = ""
    seen: int = 0
    done: int = 0
    marker: bytes | None = None

    def after_the_call(self) -> bool:
        """Tell whether the real answer is needed first."""
        return self.late or self.kind in _ON_THE_REAL_ANSWER


class Faults:
    """The rules in force, in order."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, path: str, kind: Kind, **options: Any) -> Fault:
        """Add a rule; the options are the fields of `Fault`. Raises: ValueError for an unknown kind, option or pattern."""
        unknown = set(options) - {known.name for known in fields(Fault)}
        if kind not in get_args(Kind) or unknown:
            raise ValueError(f"unknown kind or option of fault: {kind} {sorted(unknown)}")
        fault = Fault(path=path, kind=kind, **{**_USUAL.get(kind, {}), **options})
        for pattern in (path, fault.query, fault.find):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no pattern: {error}") from error
        with self._lock:
            self.rules.append(fault)
        return fault

    def replace(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Put other rules in force. Raises: ValueError, TypeError."""
        fresh = Faults()
        for rule in rules:
            fresh.add(**rule)
        with self._lock:
            self.rules = fresh.rules

    def load(self, path: str | Path) -> None:
        """Put the rules of a JSON file, a list of objects, in force."""
        self.replace(json.loads(Path(path).read_text()))

    def due(self, method: str, path: str, query: str = "") -> Fault | None:
        """Find the rule that spoils this request, and count it."""
        with self._lock:
            for fault in self.rules:
                if fault.method not in {None, method} or not re.search(fault.path, path):
                    continue
                if not re.search(fault.query, query):
                    continue
                fault.seen += 1
                if fault.seen > fault.skip and (fault.count is None or fault.done < fault.count):
                    fault.done += 1
                    return fault
        return None
