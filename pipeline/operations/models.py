"""Request and answer models that several subjects share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from pipeline.domain.kinds import Entity
from pipeline.operations.values import LARGEST_ID, RowId, find_unusable

EntityName = Literal["person", "organization"]
DirectionName = Literal["incoming", "outgoing"]
ConnectorName = Annotated[str, Field(min_length=1, max_length=100)]
"""An id or a name."""


T = TypeVar("T")
PageOnly = Annotated[T, SkipJsonSchema(), Field(exclude=True)]
"""A field of an answer that only the console's pages show: `/api/v1` and `--json` do not have it. It needs a default."""


class Shape(BaseModel):
    """Built from a row, or from any object with attributes of these names."""

    model_config = ConfigDict(from_attributes=True)


class Asked(BaseModel):
    """A request. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_usable(cls, sent: Any) -> Any:
        if trouble := find_unusable(sent):
            raise ValueError(trouble)
        return sent


class NoRequest(Asked):
    """A request without fields."""


class ConnectorRequest(Asked):
    """A request about one connector."""

    connector: ConnectorName


class RowRequest(ConnectorRequest):
    """A request about one row of a connector, by its id."""

    id: RowId


class Listed(Asked):
    """A page of a list, newest first."""

    before: Annotated[int | None, Field(ge=1, le=LARGEST_ID, description="Only entries older than this id.")] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50


class ListedWhole(Listed):
    """A page of a list with large entries: fewer fit into one answer."""

    limit: Annotated[int, Field(ge=1, le=100)] = 50


class OfEntity(Asked):
    entity: EntityName

    @property
    def kind(self) -> Entity:
        return Entity(self.entity)


class Done(BaseModel):
    """`done` names what was done."""

    done: str


class Counted(BaseModel):
    """`done` names what was done, `count` to how many."""

    done: str
    count: int
