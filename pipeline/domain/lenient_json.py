"""JSON as it comes: orjson, and the standard library for what orjson refuses, lone surrogates above all.

Such text is for transform to refuse, record by record; until then it must pass through our hands unharmed.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

import orjson


def read_lenient(body: bytes) -> Any:
    """Parse; raises ValueError for what is not JSON at all."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)


def write_lenient(value: Any) -> bytes:
    """JSON of anything that came as JSON, of dataclasses that hold such things, and of sets."""
    try:
        return orjson.dumps(value, default=sorted)
    except TypeError:
        return json.dumps(value, default=_plain).encode("ascii")


def _plain(value: Any) -> Any:
    """What the standard library does not know and orjson does. It is asked again about what lies within."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return sorted(value)


def is_nested_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists lie within one another to more than so many levels."""
    within = [value]
    for _ in range(levels + 1):
        within = [
            inner
            for each in within
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not within:
            return False
    return True
