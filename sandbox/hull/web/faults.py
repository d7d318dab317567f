"""Faults on order: requests whose path matches a rule go wrong in the way it names.

Rule: {"path": regular expression, "kind", "method"?, "skip"? (0), "count"? (1), "late"? (false)}; `skip` matching
requests pass, then `count` fail (null: all). Kinds: "status" (answers `status`, 503, with `headers`), "html" (a
proxy's error page, 502), "truncated" (the real answer, cut in half), "slow" (answers as usual after `seconds`, 30).
With `late` the request takes effect and only its answer is lost. The sandbox's own paths never fail.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from flask import Flask, Response, request

from sandbox.hull.web.answers import refusal

Kind = Literal["status", "html", "truncated", "slow"]
_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule; `seen` counts the requests that matched it."""

    path: str
    kind: Kind
    method: str | None = None
    skip: int = 0
    count: int | None = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 30.0
    late: bool = False
    seen: int = 0

    def is_due(self, method: str, path: str) -> bool:
        """Count the request if it matches; True when it is to fail."""
        if self.method not in (None, method) or re.search(self.path, path) is None:
            return False
        self.seen += 1
        return self.seen > self.skip and (self.count is None or self.seen <= self.skip + self.count)


class Faults:
    """The rules in force; the first that is due wins."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self.sleep = sleep
        self._rules: list[Fault] = []
        self._lock = threading.Lock()

    def replace(self, rules: list[Mapping[str, Any]]) -> None:
        """Raises ValueError, TypeError or re.error when a rule is none."""
        faults = [Fault(**rule) for rule in rules]
        for fault in faults:
            if fault.kind not in get_args(Kind):
                raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, not {fault.kind!r}")
            re.compile(fault.path)
        with self._lock:
            self._rules = faults

    def listed(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._rules]

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.is_due(method, path)), None)


def install(app: Flask, faults: Faults) -> None:
    """Put the faults between the network and the app."""

    @app.before_request
    def fail_instead() -> Response | None:
        if request.path.startswith("/__sandbox__"):
            return None
        fault = faults.take(request.method, request.path)
        request.environ["sandbox.fault"] = fault
        if fault is None or fault.kind == "truncated" or (fault.late and fault.kind != "slow"):
            return None
        if fault.kind == "slow":
            faults.sleep(fault.seconds)
            return None
        return _failure(fault)

    @app.after_request
    def fail_afterwards(response: Response) -> Response:
        fault = request.environ.get("sandbox.fault")
        if fault is not None and fault.kind == "truncated":
            response.set_data(response.get_data()[: len(response.get_data()) // 2])
        elif fault is not None and fault.late and fault.kind != "slow":
            return _failure(fault)
        return response


def _failure(fault: Fault) -> Response:
    if fault.kind == "status":
        failure = refusal(fault.status, "as ordered by a fault rule")
    else:
        failure = Response(_PAGE, 502, mimetype="text/html")
    failure.headers.update(fault.headers)
    return failure
