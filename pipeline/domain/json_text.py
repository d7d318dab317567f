"""Parse and write JSON with orjson, and with the standard library for what orjson refuses, mainly lone surrogates.

The transform rejects such text, record by record; until then it must pass unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Final

import orjson
from pydantic import BeforeValidator

MAX_DEPTH: Final = 32
"""Maximum nesting of a record: neither system sends deeper ones."""
DEEPEST: Final = 100
"""Maximum nesting of a request, and of the values in an answer."""
_UNUSABLE: Final = re.compile("[\\0\\ud800-\\udfff]")
_HALF: Final = re.compile("[\\ud800-\\udfff]")
_STRUCTURE: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)
"""A text without an end also counts as a text, so that it is not searched again from each quote in it."""


def read_lenient(body: bytes) -> Any:
    """Parse JSON, including what orjson refuses. Raises: ValueError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_strict(body: bytes, *, max_depth: int | None = MAX_DEPTH) -> Any:
    """Parse JSON strictly: no NaN, no Infinity, no deeper than `max_depth` (None: the parser's own 1,024).

    orjson refuses half a surrogate pair, which both systems can send inside a text; the standard parser reads it, and
    the transform then names the field. Raises: ValueError.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        if b"\\u" not in body:
            raise
        value = _read_with_surrogates(body)
    if max_depth is not None and is_nested_deeper(value, max_depth):
        raise ValueError(f"JSON nested deeper than {max_depth}")
    return value


def _read_with_surrogates(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def write_lenient(value: Any) -> bytes:
    """Write as JSON anything that was read as JSON, dataclasses of such values, and sets."""
    try:
        return orjson.dumps(value, default=sorted)
    except TypeError:
        return json.dumps(value, default=_plain).encode("ascii")


def _plain(value: Any) -> Any:
    """Serialize what the standard library cannot, with orjson, which calls this again for nested values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return sorted(value)


def is_nested_deeper(value: Any, levels: int) -> bool:
    """Return whether objects and lists are nested more than `levels` deep."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(levels):
        if not level:
            return False
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if item.__class__ is dict or item.__class__ is list
        ]
    return bool(level)


_VALUES: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)


def has_more_values(body: bytes, most: int) -> bool:
    """Return whether a JSON text holds more than `most` values, objects and lists included, without parsing it.

    A parser needs up to 230 bytes for a value of seven, so the length of a text does not bound the memory it takes.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") < most:
        return False
    count = 1
    for match in _VALUES.finditer(body):
        count += match.group() in (b",", b"[", b"{")
        if count > most:
            return True
    return False


MOST_TOKENS: Final = 3_000_000
"""Maximum of texts and brackets examined in one body, in about a second and a half; a body of 20 MB has a third of them."""


def cut_below(body: bytes, levels: int, most: int = MOST_TOKENS) -> bytes:
    """Return JSON with null instead of the values that are nested more than `levels` deep.

    Other bodies, and those with more than `most` texts and brackets, are returned unchanged.
    """
    kept, depth, start, copied = [], 0, 0, 0
    for count, match in enumerate(_STRUCTURE.finditer(body)):
        if count == most:
            return body
        token = match.group()
        if token in b"[{":
            depth += 1
            if depth == levels + 1:
                start = match.start()
        elif token in b"]}":
            if depth == levels + 1:
                kept += [body[copied:start], b"null"]
                copied = match.end()
            depth -= 1
    return b"".join([*kept, body[copied:]]) if kept else body


def find_unusable(value: Any, path: str = "") -> str | None:
    """Return the path, such as `user.tier` or `segments[0].id`, of a NUL or lone surrogate, which cannot be stored or sent,
    or None."""
    if isinstance(value, str):
        return path if _UNUSABLE.search(value) else None
    if isinstance(value, dict) and (bad := next((name for name in value if _UNUSABLE.search(name)), None)) is not None:
        return f"{path}.{bad}".lstrip(".")
    inner = members_of(value, path)
    return next((found for where, each in inner if (found := find_unusable(each, where)) is not None), None)


def members_of(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of the direct members of an object or a list."""
    if isinstance(value, dict):
        yield from ((f"{path}.{name}" if path else str(name), each) for name, each in value.items())
    elif isinstance(value, list):
        yield from ((f"{path}[{position}]", each) for position, each in enumerate(value))


def writable(value: Any) -> Any:
    """Return the value as valid JSON: lone surrogates are spelled out, and deep nesting is replaced by a sentence."""
    try:
        orjson.dumps(value)
    except TypeError:
        if is_nested_deeper(value, DEEPEST):
            return f"nested more than {DEEPEST} levels deep"
        text = json.dumps(value, ensure_ascii=False, default=str)
        return json.loads(_HALF.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text))
    return value


Value = Annotated[Any, BeforeValidator(writable)]
"""Any value of a record."""
Text = Annotated[str, BeforeValidator(writable)]
"""A text of a record."""
