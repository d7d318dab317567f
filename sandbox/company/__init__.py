"""The generated company behind the Pipedrive half of the sandbox."""

from __future__ import annotations

from sandbox.company.company import Company
from sandbox.company.fields import ENTITIES, Entity, Field, Option
from sandbox.company.generator import Shares
from sandbox.company.model import Behaviour, Event, Record, User
from sandbox.company.records import PageQuery
from sandbox.company.validation import Invalid

__all__ = [
    "ENTITIES",
    "Behaviour",
    "Company",
    "Entity",
    "Event",
    "Field",
    "Invalid",
    "Option",
    "PageQuery",
    "Record",
    "Shares",
    "User",
]
