"""Checks of single values, shared by members and custom fields.

In: a value as sent, the key it was sent under, what the company knows. Out: the value to keep. `Invalid` carries the sentence of
the 400.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox.company.fields import ADDRESS_PARTS, Field

MAX_INTEGER = 2**53
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")


class Invalid(ValueError):
    """The body cannot be accepted; the message says which key and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the company knows that a body may refer to."""

    custom_fields: Mapping[str, Field]
    label_ids: Collection[int | str]
    users: Collection[int]
    firmographics: bool
    has_organization: Callable[[int], bool]
    has_person: Callable[[int], bool]


Check = Callable[[Any, str, Context], Any]


def moment(value: Any, key: str = "add_time", _: Context | None = None) -> str:
    """Accept an RFC 3339 time of whole seconds and give it back in UTC.

    Raises: Invalid, worded as the API words it for `updated_since`.
    """
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise Invalid(f"{key}: {value!r} is not a valid datetime")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise Invalid(f"{key}: {value!r} is not a valid datetime") from error
    return parsed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def integer(value: Any, key: str, _: Context) -> int:
    """Accept an integer; JSON true is a Python int, and is refused."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_INTEGER:
        raise Invalid(f"{key}: must be an integer")
    return value


def owner(value: Any, key: str, context: Context) -> int:
    """Accept the id of a user of the company."""
    if integer(value, key, context) not in context.users:
        raise Invalid(f"{key}: user {value} was not found")
    return int(value)


def organization(value: Any, key: str, context: Context) -> int | None:
    """Accept the id of a live Organization, or null."""
    if value is not None and not context.has_organization(integer(value, key, context)):
        raise Invalid(f"{key}: organization {value} was not found")
    return None if value is None else int(value)


def person(value: Any, key: str, context: Context) -> int:
    """Accept the id of a live Person."""
    if not context.has_person(integer(value, key, context)):
        raise Invalid(f"{key}: person {value} was not found")
    return int(value)


def address(value: Any, key: str, _: Context) -> dict[str, Any] | None:
    """Complete an address: what is not sent becomes null, also on update."""
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("value"), str):
        raise Invalid(f"{key}.value: Required")
    for part, text in value.items():
        if part not in ADDRESS_PARTS or not (text is None or isinstance(text, str)):
            raise Invalid(f"{key}.{part}: must be a known address part and a string")
    return {part: value.get(part) for part in ADDRESS_PARTS}


def string(limit: int) -> Check:
    """Make a check for strings of at most `limit` characters."""

    def check(value: Any, key: str, _: Context) -> str:
        if not isinstance(value, str):
            raise Invalid(f"{key}: must be a string")
        if len(value) > limit:
            raise Invalid(f"{key}: must be at most {limit} characters long")
        return value

    return check


def nullable(check: Check) -> Check:
    """Make a check that also accepts null."""

    def checked(value: Any, key: str, context: Context) -> Any:
        return None if value is None else check(value, key, context)

    return checked
