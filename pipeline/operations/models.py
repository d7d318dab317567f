"""Field types, and request and answer models, that several subjects share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from pipeline.domain.json_text import DEEPEST, is_nested_deeper
from pipeline.domain.json_text import Text as Text  # noqa: PLC0414 - for answer models
from pipeline.domain.json_text import Value as Value  # noqa: PLC0414
from pipeline.domain.kinds import Entity
from pipeline.domain.times import HOW, read_moment

LARGEST_ID: Final = 2**63 - 1
FIRST, LAST = datetime(2010, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Pipedrive is not older; a text can name years and time zones that a database does not accept."""
_UNUSABLE: Final = re.compile("[\\0\\ud800-\\udfff]")


def _in_utc(given: datetime) -> datetime:
    if not FIRST <= given < LAST:
        raise ValueError(f"it is before {FIRST:%Y} or after {LAST:%Y}")
    return given.astimezone(UTC)


def _moment(given: Any) -> Any:
    return read_moment(given, datetime.now(UTC)) if isinstance(given, str) else given


def find_unusable(sent: Any) -> str | None:
    """Return why a value cannot be stored or sent; None if it can be."""
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
    """Marks a field that the command line reads from a file: no secret belongs on a command line."""


RowId = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
Moment = Annotated[
    datetime, BeforeValidator(_moment), AfterValidator(_in_utc), Field(description=HOW[0].upper() + HOW[1:])
]
Short = Annotated[str, Field(min_length=1, max_length=300)]
Why = Annotated[str, Field(min_length=1, max_length=500, description="Kept in the audit log.")]
Secret = Annotated[
    str, Field(min_length=1, max_length=1000, pattern=r"^[!-~]+$", description="Never shown again."), FromFile()
]
HullId = Annotated[str, Field(min_length=1, max_length=100)]


EntityName = Annotated[Literal["person", "organization"], Field(description="The kind of record.")]
DirectionName = Annotated[Literal["incoming", "outgoing"], Field(description="Incoming is from Pipedrive to Hull.")]
ReasonCode = Annotated[Short, Field(description="A reason code, such as no_update_time.")]
ConnectorName = Annotated[str, Field(min_length=1, max_length=100)]
"""An id or a name."""


T = TypeVar("T")
PageOnly = Annotated[T, SkipJsonSchema(), Field(exclude=True)]
"""A field of an answer that only the console shows: `/api/v1` and `--json` omit it. It needs a default."""


class Shape(BaseModel):
    """Built from a row, or from any object with attributes of these names."""

    model_config = ConfigDict(from_attributes=True)


S = TypeVar("S", bound=BaseModel)


def shape_of(model: type[S], row: Any, **values: Any) -> S:
    """Return an answer model from `values`, and from attributes of `row` for its other fields."""
    taken = {name: getattr(row, name) for name in model.model_fields if name not in values}
    return model(**taken, **values)


def split_page(found: Sequence[T], size: int) -> tuple[Sequence[T], int | None]:
    """Return the page of a list that was read with one row more, and the id where the next page begins, if there is one."""
    shown = found[:size]
    return shown, shown[-1].id if len(found) > size else None  # type: ignore[attr-defined]  # rows have ids


class RequestModel(BaseModel):
    """A request. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_usable(cls, sent: Any) -> Any:
        if trouble := find_unusable(sent):
            raise ValueError(trouble)
        return sent


class NoRequest(RequestModel):
    """A request without fields."""


class ConnectorRequest(RequestModel):
    """A request about one connector."""

    connector: ConnectorName


class RowRequest(ConnectorRequest):
    """A request about one row of a connector, by its id."""

    id: RowId


class PageRequest(RequestModel):
    """A page of a list, newest first."""

    before: Annotated[int | None, Field(ge=1, le=LARGEST_ID, description="Only entries older than this id.")] = None
    limit: Annotated[int, Field(ge=1, le=500, description="Maximum number of entries.")] = 50


class ShortPageRequest(PageRequest):
    """A page of a list with large entries: fewer fit into one answer."""

    limit: Annotated[int, Field(ge=1, le=100, description="Maximum number of entries.")] = 50


class EntityRequest(RequestModel):
    entity: EntityName

    @property
    def kind(self) -> Entity:
        return Entity(self.entity)


class Done(BaseModel):
    """`done` names what was done."""

    done: str


class Counted(BaseModel):
    """`done` names what was done, `count` to how many records."""

    done: str
    count: int
