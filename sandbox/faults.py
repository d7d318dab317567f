"""Faults of both systems: rules that replace or damage answers.

A rule matches requests and has a kind of fault; the first rule that is due wins. Rules are set in
process (`app.faults.add(...)`), by POST /__sandbox__/faults, or from a file (`load`). An app calls `before_view` and
`after_view` around its views, and describes its own kinds of faults in `FaultKinds`.
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Response, g, request

from sandbox.app import JSON, Control, is_control, json_answer, read_json

_GZIP = 31  # zlib: the largest window, in gzip's wrapping
_BLOCK = bytes(1_000_000)


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule.

    `path` is searched for in the request's path, and `query` in its query string; `method` None is any. The rule skips the
    first `skip` matching requests, then applies to `count` of them (None: all). With `late`, the request is processed before
    its answer is damaged, so that a create really happens. `headers` are added to the answer.

    status     `status` with `body`             slow       waits `seconds`, then continues
    html       `status` with a page             truncated  half the answer, with a matching length
    empty      `status` without a body          cut        half the answer, then the connection breaks
    not_json   200 with something else          drip       the answer, `seconds` between any two bytes
    gzip_bomb  `size` bytes, packed small       rewrite    the answer with the first match of `find` become `put`

    A system may have more kinds (`FaultKinds`).
    """

    path: str
    kind: str
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
    marker: str | None = None

    def is_due(self, method: str, path: str, query: str) -> bool:
        """Count the request if it matches, and return whether the fault applies to it."""
        if self.method not in {None, method} or not (re.search(self.path, path) and re.search(self.query, query)):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.count is not None and self.done >= self.count):
            return False
        self.done += 1
        return True


MakeAnswer = Callable[[Fault], Response]
ChangeAnswer = Callable[[Fault, Response], Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKinds:
    """The kinds of faults that a system has of its own.

    defaults  kind → options that differ from the defaults of `Fault`
    make      kind → the answer in place of a real one; `status` and `html` at least
    change    kind → the answer that replaces a real one
    """

    defaults: Mapping[str, Mapping[str, Any]]
    make: Mapping[str, MakeAnswer]
    change: Mapping[str, ChangeAnswer] = field(default_factory=dict)


class Faults:
    """The rules in force, in order."""

    def __init__(self, kinds: FaultKinds, sleep: Callable[[float], None] = time.sleep) -> None:
        self.rules: list[Fault] = []
        self.sleep = sleep
        self._defaults = kinds.defaults
        self._make: dict[str, MakeAnswer] = {**_MAKE, **kinds.make}
        self._change: dict[str, ChangeAnswer] = {**_CHANGE, "slow": self._slow, "drip": self._drip, **kinds.change}
        self._lock = threading.Lock()

    def add(self, path: str, kind: str, **options: Any) -> Fault:
        """Add a rule; the options are the fields of `Fault`. Raises: ValueError for an unknown kind, option or pattern."""
        fault = self._read({"path": path, "kind": kind, **options})
        with self._lock:
            self.rules.append(fault)
        return fault

    def replace(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Replace all rules. Raises: ValueError, TypeError."""
        fresh = [self._read(rule) for rule in rules]
        with self._lock:
            self.rules = fresh

    def load(self, path: str | Path) -> None:
        """Replace all rules by those of a JSON file, a list of objects."""
        self.replace(json.loads(Path(path).read_text()))

    def controls(self) -> list[Control]:
        """Return the controls of faults: GET lists the rules; POST replaces them, [] ends all faults."""
        return [("GET", "faults", self._show), ("POST", "faults", self._set)]

    def before_view(self) -> Response | None:
        """Return the answer to the current request if its fault needs no real one; otherwise keep the fault for `after_view`."""
        g.fault = None
        if is_control():
            return None
        with self._lock:
            query = request.query_string.decode()
            fault = next((rule for rule in self.rules if rule.is_due(request.method, request.path, query)), None)
        if fault is None:
            return None
        if fault.kind == "slow" and not fault.late:
            self.sleep(fault.seconds)
            return None
        if fault.late or fault.kind in self._change:
            g.fault = fault
            return None
        return self._made(fault)

    def after_view(self, answer: Response) -> Response:
        """Return the answer with the fault of the current request, if it has one."""
        fault: Fault | None = g.get("fault")
        if fault is None:
            return answer
        if fault.kind not in self._change:
            return self._made(fault)
        spoilt = self._change[fault.kind](fault, answer)
        spoilt.headers.update(fault.headers)
        return spoilt

    def _show(self) -> Response:
        """Answer with the rules in force and what they have counted."""
        return json_answer([asdict(rule) for rule in self.rules])

    def _set(self) -> Response:
        self.replace(read_json())
        return self._show()

    def _made(self, fault: Fault) -> Response:
        made = self._make[fault.kind](fault)
        made.headers.update(fault.headers)
        return made

    def _read(self, rule: Mapping[str, Any]) -> Fault:
        if not isinstance(rule, Mapping):
            raise TypeError("a rule must be an object")
        kinds, known = {*self._make, *self._change}, {member.name for member in fields(Fault)}
        if rule.get("kind") not in kinds or "path" not in rule or not known >= set(rule):
            raise ValueError(
                f"a rule has a path, a kind ({', '.join(sorted(kinds))}) and options ({', '.join(sorted(known))})"
            )
        fault = Fault(**{**self._defaults.get(rule["kind"], {}), **rule})
        for pattern in (fault.path, fault.query, fault.find):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a pattern: {error}") from error
        return fault

    def _slow(self, fault: Fault, answer: Response) -> Response:
        self.sleep(fault.seconds)
        return answer

    def _drip(self, fault: Fault, answer: Response) -> Response:
        whole = answer.get_data()

        def drops() -> Iterator[bytes]:
            for position in range(len(whole)):
                yield whole[position : position + 1]
                self.sleep(fault.seconds)

        return Response(drops(), answer.status_code, content_type=answer.content_type)


def with_body(answer: Response, body: bytes) -> Response:
    """Return an answer with another body and a matching length."""
    return Response(body, answer.status_code, content_type=answer.content_type)


def _truncated(_: Fault, answer: Response) -> Response:
    whole = answer.get_data()
    return with_body(answer, whole[: len(whole) // 2])


def _rewrite(fault: Fault, answer: Response) -> Response:
    put = fault.put.encode()
    return with_body(answer, re.sub(fault.find.encode(), lambda _: put, answer.get_data(), count=1))


def _cut(_: Fault, answer: Response) -> Response:
    """Announce the whole answer, and close the connection in the middle."""
    whole = answer.get_data()
    cut = Response(_breaking(whole[: len(whole) // 2]), answer.status_code, content_type=answer.content_type)
    cut.headers["Content-Length"] = str(len(whole))
    return cut


def _breaking(half: bytes) -> Iterator[bytes]:
    yield half
    raise ConnectionResetError("cut on purpose")


@lru_cache(maxsize=2)
def _bomb(size: int) -> bytes:
    """Compress `size` zeros to a thousandth of it."""
    packer = zlib.compressobj(9, wbits=_GZIP)
    blocks = [packer.compress(_BLOCK[: min(len(_BLOCK), size - start)]) for start in range(0, size, len(_BLOCK))]
    return b"".join([*blocks, packer.flush()])


_MAKE: dict[str, MakeAnswer] = {
    "empty": lambda fault: Response(b"", fault.status, content_type=JSON),
    "not_json": lambda _: Response("upstream error: \xa0{not json", 200, content_type=JSON),
    "gzip_bomb": lambda fault: Response(_bomb(fault.size), 200, {"Content-Encoding": "gzip"}, content_type=JSON),
}
_CHANGE: dict[str, ChangeAnswer] = {"truncated": _truncated, "rewrite": _rewrite, "cut": _cut}
