"""Field types that several request and answer models share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from pipeline.domain.json_text import DEEPEST, is_nested_deeper
from pipeline.domain.json_text import Text as Text  # noqa: PLC0414 - for answer models
from pipeline.domain.json_text import Value as Value  # noqa: PLC0414
from pipeline.domain.times import HOW, read_moment

LARGEST_ID: Final = 2**63 - 1
FIRST, LAST = datetime(2010, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Pipedrive is not older; a database accepts fewer years and time zones than a text can name."""
_UNUSABLE: Final = re.compile("[\\0\\ud800-\\udfff]")


def _in_utc(given: datetime) -> datetime:
    if not FIRST <= given < LAST:
        raise ValueError(f"it is before {FIRST:%Y} or after {LAST:%Y}")
    return given.astimezone(UTC)


def _moment(given: Any) -> Any:
    return read_moment(given, datetime.now(UTC)) if isinstance(given, str) else given


def find_unusable(sent: Any) -> str | None:
    """Return why a value cannot be stored or sent; None if it can."""
    if is_nested_deeper(sent, DEEPEST):
        return f"it is nested more than {DEEPEST} levels deep"
    return "it contains a NUL or half a surrogate pair" if _holds_unusable(sent) else None


def _holds_unusable(value: Any) -> bool:
    if isinstance(value, str):
        return _UNUSABLE.search(value) is not None
    if isinstance(value, dict):
        return any(_holds_unusable(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(map(_holds_unusable, value))


class FromFile:
    """Marks a field whose value the command line reads from a file: a secret must not be part of a command line."""


RowId = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
Since = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Moment = Annotated[datetime, BeforeValidator(_moment), AfterValidator(_in_utc), Field(description=HOW.capitalize())]
Short = Annotated[str, Field(min_length=1, max_length=300)]
Why = Annotated[str, Field(min_length=1, max_length=500, description="Kept in the audit log.")]
Secret = Annotated[
    str, Field(min_length=1, max_length=1000, pattern=r"^[!-~]+$", description="Never shown again."), FromFile()
]
HullId = Annotated[str, Field(min_length=1, max_length=100)]
