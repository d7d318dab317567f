"""What several operations take and give."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from db import connector as connectors
from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.web.api.door import missing
from pipeline.web.api.values import LARGEST_ID, RowId, find_unusable
from pipeline.web.console.guard import who

EntityName = Literal["person", "organization"]
DirectionName = Literal["incoming", "outgoing"]
S = TypeVar("S", bound="Shape")


class Shape(BaseModel):
    """Read off a row, or off any object with attributes of these names."""

    model_config = ConfigDict(from_attributes=True)


class Asked(BaseModel):
    """What somebody sends: a name that is not known is a mistake, not a wish to be ignored."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_usable(cls, sent: Any) -> Any:
        if trouble := find_unusable(sent):
            raise ValueError(trouble)
        return sent


class OfConnector(BaseModel):
    """A connector, by its id or its name."""

    connector: Annotated[str, Field(min_length=1, max_length=100)]


class OfRow(OfConnector):
    """Something of a connector, by its number."""

    id: RowId


class Listed(Asked):
    """A part of a list, newest first."""

    before: Annotated[int | None, Field(ge=1, le=LARGEST_ID, description="Only what is older than this id.")] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50


class ListedWhole(Listed):
    """The same of what may be large: records are shown with their values."""

    limit: Annotated[int, Field(ge=1, le=100)] = 50


class OfEntity(Asked):
    entity: EntityName

    @property
    def kind(self) -> Entity:
        return Entity(self.entity)


class Done(BaseModel):
    """It is done."""

    done: str


class Counted(BaseModel):
    """To how many."""

    done: str
    count: int


def find(path: OfConnector) -> Connector:
    """The connector. Raises: Nay."""
    if "\x00" in path.connector:
        raise missing("There is no such connector.", "GET /api/v1/connectors lists them.")
    with transaction() as session:
        found = connectors.find_connector(session, path.connector)
    if found is None or not who().may_see(found.key):
        raise missing("There is no such connector.", "GET /api/v1/connectors lists them.")
    return found
