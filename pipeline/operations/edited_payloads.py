"""Edited payloads: their mistakes, by line and field, and their differences from the received payload."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from db import failure as failures
from db.failure import Failure
from pipeline.domain.json_text import find_unusable, is_nested_deeper, members_of, write_lenient
from pipeline.domain.kinds import Entity
from pipeline.operations.errors import OperationError, invalid
from pipeline.operations.models import Shape, Text, Value
from pipeline.sync.changes.outgoing_changes import LEVELS

LARGEST: Final = 1024 * 1024
"""Maximum bytes of an edited payload."""
SHOWN: Final = 200
"""Maximum of shown differences."""


class DifferenceShape(Shape):
    """One changed place in a payload, such as `user.tier` or `segments[0].id`."""

    path: Text
    before: Value
    after: Value
    is_new: bool
    is_removed: bool


def is_editable(failure: Failure) -> bool:
    """Return whether a corrected payload may be sent: an incoming record is corrected in Pipedrive and read again."""
    return failure.kind == "record" and failure.direction == "outgoing" and failure.state == "open"


def text_of(failure: Failure) -> str:
    """Return the payload as text for editing, one field a line."""
    body = failures.payload_of(failure)
    if body is None:
        return ""
    try:
        return json.dumps(json.loads(body), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def read_edited(text: str, failure: Failure) -> bytes:
    """Return an edited payload as it would be sent. Raises OperationError."""
    return write_lenient(parse_edited(text, failure))


def parse_edited(text: str, failure: Failure) -> dict[str, Any]:
    """Return an edited payload as an object. Raises OperationError, with the line of a mistake."""
    if not is_editable(failure):
        raise _mistake("Only open failures of outgoing records can be corrected here.")
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise _mistake("The payload is longer than 1 MB.")
    message: dict[str, Any] = _parse(text)
    _check(message, failure)
    return message


def differences(failure: Failure, edited: bytes) -> list[DifferenceShape]:
    """Return the differences between the received and the edited payload, field by field."""
    body = failures.payload_of(failure)
    try:
        before = json.loads(body) if body is not None else {}
    except (ValueError, RecursionError):
        before = {}
    return list(islice(_walk("", before, json.loads(edited)), SHOWN))


def _mistake(message: str) -> OperationError:
    return invalid("payload_refused", message)


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_require_unique, parse_constant=_reject_constant)
    except json.JSONDecodeError as wrong:
        raise _mistake(f"Line {wrong.lineno}, column {wrong.colno}: {wrong.msg}.") from None
    except RecursionError:
        raise _mistake("The payload is nested too deeply.") from None
    except ValueError as wrong:  # for example a number with thousands of digits
        raise _mistake(f"The payload cannot be read: {wrong}.") from None


def _require_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _mistake(f"The field {name!r} is given twice: delete one.")
        found[name] = value
    return found


def _reject_constant(name: str) -> Any:
    raise _mistake(f"{name} is not a JSON number: write a number, or null.")


def _check(message: Any, failure: Failure) -> None:
    hull = Entity(failure.entity).hull
    if not isinstance(message, dict):
        raise _mistake("The payload must be an object: { … }.")
    report = message.get(hull)
    if not isinstance(report, dict):
        raise _mistake(f"The field {hull!r} must be an object: the {hull.capitalize()} as Hull reports it.")
    if report.get("id") != failure.record_id:
        raise _mistake(
            f"The field '{hull}.id' must stay {failure.record_id}: this failure is about that {hull.capitalize()}."
        )
    for name, kind, words in _SHAPES:
        if message.get(name) is not None and not isinstance(message[name], kind):
            raise _mistake(f"The field {name!r} must be {words}.")
    for position, segment in enumerate(message.get("segments") or ()):
        if not isinstance(segment, dict) or not isinstance(segment.get("id"), str):
            raise _mistake(f"The field 'segments[{position}]' must be an object with an 'id'.")
    if is_nested_deeper(message, LEVELS):
        raise _mistake(f"The payload is nested more than {LEVELS} levels deep.")
    if (path := find_unusable(message)) is not None:
        raise _mistake(f"The field {path!r} contains a NUL or half a character, which cannot be stored or sent.")


_SHAPES: Final = (
    ("account", dict, "an object, or null"),
    ("changes", dict, "an object, or null"),
    ("segments", list, "a list"),
    ("account_segments", list, "a list"),
    ("events", list, "a list"),
    ("is_export", bool, "true or false"),
)


def _walk(path: str, before: Any, after: Any) -> Iterator[DifferenceShape]:
    if type(before) is type(after) and isinstance(before, dict | list):
        old, new = dict(members_of(before, path)), dict(members_of(after, path))
        for where in dict.fromkeys([*old, *new]):
            if where not in new:
                yield DifferenceShape(path=where, before=old[where], after=None, is_new=False, is_removed=True)
            elif where not in old:
                yield DifferenceShape(path=where, before=None, after=new[where], is_new=True, is_removed=False)
            else:
                yield from _walk(where, old[where], new[where])
    elif type(before) is not type(after) or before != after:
        yield DifferenceShape(path=path, before=before, after=after, is_new=False, is_removed=False)
