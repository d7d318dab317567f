"""Misbehave on purpose.

In: rules (path pattern, method, which of the matching requests, kind). Out: a spoilt answer. Rules are set in process
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

from flask import Response

from sandbox.pipedrive import answers

Kind = Literal["status", "html", "truncated", "not_json", "repeat_page", "429_burst"]
_USUAL: dict[str, dict[str, Any]] = {"html": {"status": 403}, "repeat_page": {"count": None}}
_MARKER = re.compile(rb'"next_cursor":("[^"]*"|null)\}\}$')


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule.

    `path` is searched for in the request's path; `method` None is any. The rule lets `skip` matching requests pass, then
    spoils `count` of them (None: all). `late` carries the request out before spoiling its answer, so that a create whose
    answer is lost did happen.
    """

    path: str
    kind: Kind
    method: str | None = None
    skip: int = 0
    count: int | None = 1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    late: bool = False
    seen: int = 0
    done: int = 0
    marker: bytes | None = None

    def after_the_call(self) -> bool:
        """Tell whether the real answer is needed first."""
        return self.late or self.kind in {"truncated", "repeat_page"}


class Faults:
    """The rules in force, in order."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, path: str, kind: Kind, **options: Any) -> Fault:
        """Add a rule; the options are the fields of `Fault`. Raises: ValueError for an unknown kind or option."""
        unknown = set(options) - {known.name for known in fields(Fault)}
        if kind not in get_args(Kind) or unknown:
            raise ValueError(f"unknown kind or option of fault: {kind} {sorted(unknown)}")
        fault = Fault(path=path, kind=kind, **{**_USUAL.get(kind, {}), **options})
        re.compile(path)
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

    def due(self, method: str, path: str) -> Fault | None:
        """Find the rule that spoils this request, and count it."""
        with self._lock:
            for fault in self.rules:
                if fault.method not in {None, method} or not re.search(fault.path, path):
                    continue
                fault.seen += 1
                if fault.seen > fault.skip and (fault.count is None or fault.done < fault.count):
                    fault.done += 1
                    return fault
        return None


def spoil(fault: Fault, answer: Response | None) -> Response:
    """Make the answer the rule wants; `answer` is the real one for rules that need it."""
    if fault.kind == "truncated" and answer is not None:
        whole = answer.get_data()
        spoilt = Response(whole[: len(whole) // 2], answer.status_code, content_type=answers.JSON)
    elif fault.kind == "repeat_page" and answer is not None:
        spoilt = _repeat(fault, answer)
    elif fault.kind == "html":
        spoilt = answers.html(fault.status, f"{fault.status} | Attention required")
    elif fault.kind == "not_json":
        spoilt = Response("upstream said: \xa0{not json", 200, content_type=answers.JSON)
    elif fault.kind == "429_burst":
        spoilt = answers.plain(fault.body or answers.over_limit().body, 429)
        spoilt.headers.extend({"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "2"})
    else:
        error = {"success": False, "error": f"Fault {fault.status}", "error_info": answers.SEE_DOCS}
        spoilt = answers.plain(fault.body or error, fault.status)
    spoilt.headers.update(fault.headers)
    return spoilt


def _repeat(fault: Fault, answer: Response) -> Response:
    """Give out the same marker for ever: the first one this rule saw."""
    found = _MARKER.search(answer.get_data())
    if found is None:
        return answer
    if fault.marker is None:
        fault.marker = found.group(1)
    body = _MARKER.sub(b'"next_cursor":%b}}' % fault.marker.replace(b"\\", b"\\\\"), answer.get_data())
    return Response(body, answer.status_code, content_type=answers.JSON)
