"""A payload that a person has edited: what is wrong with it, named by line and field, and what it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from db import failure as failures
from db.failure import Failure
from pipeline.domain.json_text import find_unusable, is_nested_deeper, members_of, write_lenient
from pipeline.domain.kinds import Entity
from pipeline.insight.failures import is_editable
from pipeline.sync.changes.hull_messages import LEVELS

LARGEST: Final = 1024 * 1024
"""Bytes of an edited payload: what a form carries."""
SHOWN: Final = 200
"""Differences that are shown."""


class PayloadMistake(Exception):
    """The edited payload is not valid; the text says where and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadDifference:
    """One changed place in a payload, such as `user.tier` or `segments[0].id`. `is_new`, `is_gone`: it is only on one side."""

    path: str
    before: Any
    after: Any
    is_new: bool = False
    is_gone: bool = False


def text_of(failure: Failure) -> str:
    """The payload as a person edits it: one field a line."""
    body = failures.payload_of(failure)
    if body is None:
        return ""
    try:
        return json.dumps(json.loads(body), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def read_edited(text: str, failure: Failure) -> bytes:
    """Return the payload that a text is, as it would be sent. Raises PayloadMistake."""
    return write_lenient(parse_edited(text, failure))


def parse_edited(text: str, failure: Failure) -> dict[str, Any]:
    """Return the message that a text is. Raises PayloadMistake, with the line of a mistake."""
    if not is_editable(failure):
        raise PayloadMistake("Only open failures of records on their way to Pipedrive can be corrected here.")
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise PayloadMistake("It is longer than 1 MB.")
    message: dict[str, Any] = _parse(text)
    _check(message, failure)
    return message


def differences(failure: Failure, edited: bytes) -> list[PayloadDifference]:
    """What the edited payload changes against the one that came, field by field."""
    body = failures.payload_of(failure)
    try:
        before = json.loads(body) if body is not None else {}
    except (ValueError, RecursionError):
        before = {}
    return list(islice(_walk("", before, json.loads(edited)), SHOWN))


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except json.JSONDecodeError as wrong:
        raise PayloadMistake(f"Line {wrong.lineno}, column {wrong.colno}: {wrong.msg}.") from None
    except RecursionError:
        raise PayloadMistake("It is nested too deeply.") from None
    except ValueError as wrong:  # a number of thousands of digits, for one
        raise PayloadMistake(f"It cannot be read: {wrong}.") from None


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise PayloadMistake(f"The field {name!r} is given twice: take one away.")
        found[name] = value
    return found


def _no_constant(name: str) -> Any:
    raise PayloadMistake(f"{name} is no number of JSON: write a number, or null.")


def _check(message: Any, failure: Failure) -> None:
    hull = Entity(failure.entity).hull
    if not isinstance(message, dict):
        raise PayloadMistake("It must be an object: { … }.")
    report = message.get(hull)
    if not isinstance(report, dict):
        raise PayloadMistake(f"The field {hull!r} must be an object: it is the {hull.capitalize()} as Hull reports it.")
    if report.get("id") != failure.record_id:
        raise PayloadMistake(
            f"The field '{hull}.id' must stay {failure.record_id}: this failure is about that {hull.capitalize()}."
        )
    for name, kind, words in _SHAPES:
        if message.get(name) is not None and not isinstance(message[name], kind):
            raise PayloadMistake(f"The field {name!r} must be {words}.")
    for position, segment in enumerate(message.get("segments") or ()):
        if not isinstance(segment, dict) or not isinstance(segment.get("id"), str):
            raise PayloadMistake(f"The field 'segments[{position}]' must be an object with an 'id'.")
    if is_nested_deeper(message, LEVELS):
        raise PayloadMistake(f"It is nested more than {LEVELS} levels deep.")
    if (path := find_unusable(message)) is not None:
        raise PayloadMistake(
            f"The field {path!r} holds a NUL or half a character, which can be neither stored nor sent."
        )


_SHAPES: Final = (
    ("account", dict, "an object, or null"),
    ("changes", dict, "an object, or null"),
    ("segments", list, "a list"),
    ("account_segments", list, "a list"),
    ("events", list, "a list"),
    ("is_export", bool, "true or false"),
)


def _walk(path: str, before: Any, after: Any) -> Iterator[PayloadDifference]:
    if type(before) is type(after) and isinstance(before, dict | list):
        old, new = dict(members_of(before, path)), dict(members_of(after, path))
        for where in dict.fromkeys([*old, *new]):
            if where not in new:
                yield PayloadDifference(path=where, before=old[where], after=None, is_gone=True)
            elif where not in old:
                yield PayloadDifference(path=where, before=None, after=new[where], is_new=True)
            else:
                yield from _walk(where, old[where], new[where])
    elif type(before) is not type(after) or before != after:
        yield PayloadDifference(path=path, before=before, after=after)
