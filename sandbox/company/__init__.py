"""The generated company behind the Pipedrive half of the sandbox."""

from __future__ import annotations

from sandbox.company.bodies import Record
from sandbox.company.checks import Invalid
from sandbox.company.company import Company
from sandbox.company.fields import ENTITIES, Entity, Field, Option
from sandbox.company.generated.draws import Shares
from sandbox.company.load import load_fields, load_jsonl
from sandbox.company.store import PageQuery
from sandbox.company.words import Behaviour, Event, User

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
    "load_fields",
    "load_jsonl",
]
