"""Sends: chosen Users or Accounts, or a whole segment, that a job sends to Pipedrive."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import identifier_search, job
from db.connector import Connector
from db.identifier_search import KnownRecord
from db.job import Job
from db.session import transaction
from pipeline.domain.budget import WRITE_TOKENS
from pipeline.domain.kinds import Entity, Role
from pipeline.domain.texts import email_spelling, plain
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.jobs import sends
from pipeline.operations.call import Call
from pipeline.operations.errors import impossible, invalid
from pipeline.operations.models import ConnectorRequest, Counted, EntityName, HullId, Shape
from pipeline.operations.registry import operation
from pipeline.sync.job_queue import SEND
from pipeline.transform.identifiers import registrable_domain

PATH: Final = "/connectors/<connector>/sends"
LONGEST_ID: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Users or Accounts: these Hull ids, or all members of a segment."""

    entity: Entity
    ids: tuple[str, ...] = ()
    segment: str | None = None


class NewSend(ConnectorRequest):
    """Which Users or Accounts: by their Hull ids, or a whole segment."""

    entity: EntityName
    ids: Annotated[
        list[HullId],
        Field(max_length=sends.MOST_IDS, description="A Hull id, or the e-mail of a known User; several may be given."),
    ] = Field(default_factory=list)
    segment: Annotated[
        str | None, Field(min_length=1, max_length=100, description="All members of the segment with this id.")
    ] = None


class SizeAnswer(BaseModel):
    """The number of records, and the maximum of tokens that writing them costs."""

    count: int
    most_tokens: int


class OrderedAnswer(Counted):
    """`missing` counts the ids that do not exist in Hull; nothing is sent for them."""

    missing: int


class SendingShape(Shape):
    """The progress of a send; `of` is null before its first page; `missing` counts the ids that do not exist in Hull."""

    id: int
    state: str
    reason: str | None
    done: int
    of: int | None
    missing: int
    requested_at: datetime
    ended_at: datetime | None


class SendsAnswer(BaseModel):
    sends: list[SendingShape]


@operation(f"GET {PATH}", role=Role.VIEWER, command="sends list CONNECTOR")
def list_sends(call: Call, _request: ConnectorRequest) -> SendsAnswer:
    """List recent sends with their progress."""
    with transaction() as session:
        return SendsAnswer(sends=latest_sends(session, call.connector.key))


@operation(
    f"POST {PATH}/count",
    role=Role.OPERATOR,
    changes=False,
    command="sends count CONNECTOR ENTITY",
    example="acme person --segment 59ad2e8d30e9a0b5c1000123",
)
def count_send(call: Call, request: NewSend) -> SizeAnswer:
    """Count the Users or Accounts that would be sent; Hull counts a segment. Nothing is sent."""
    size = count_chosen(call.connector, _choice(call, request))
    return SizeAnswer(count=size, most_tokens=size * WRITE_TOKENS)


@operation(
    f"POST {PATH}",
    role=Role.OPERATOR,
    audit_action="send",
    command="sends order CONNECTOR ENTITY",
    example="acme person --ids 5bd329ebe0a1d8b9c8b0e3f1",
)
def order_send(call: Call, request: NewSend) -> OrderedAnswer:
    """Send Users or Accounts to Pipedrive in a job, ignoring all filters. Sending again writes only what changed."""
    choice = _choice(call, request)
    size = count_chosen(call.connector, choice)
    call.require_active()
    rank_ms = int(time.time() * 1000)
    wanted = sends.SendOrder(entity=choice.entity, ids=choice.ids, segment=choice.segment, rank=rank_ms)
    noun = choice.entity.hull.capitalize() + ("" if size == 1 else "s")
    whom = f"segment {choice.segment}, " if choice.segment else ""
    with call.transaction(f"{whom}{size} {noun}") as session:
        sends.enqueue(session, call.connector.key, wanted)
    return OrderedAnswer(done="asked", count=size, missing=max(0, len(choice.ids) - size))


def _choice(call: Call, request: NewSend) -> Choice:
    """Return the chosen records by their Hull ids. Raises OperationError."""
    if bool(request.ids) == bool(request.segment):
        raise invalid("malformed", "Give either ids or one segment.")
    entity = Entity(request.entity)
    with transaction() as session:
        ids = as_hull_ids(session, call.connector.key, entity, request.ids)
    return Choice(entity=entity, ids=ids, segment=request.segment)


def read_ids(text: str) -> tuple[str, ...]:
    """Return the ids of a text, separated by spaces, commas, semicolons or lines; each once. Raises OperationError."""
    ids = tuple(dict.fromkeys(text.replace(",", " ").replace(";", " ").split()))
    if len(ids) > sends.MOST_IDS:
        raise impossible(f"These are {len(ids):,} ids; the maximum is {sends.MOST_IDS:,}.", "Send a segment instead.")
    broken = [each for each in ids if len(each) > LONGEST_ID or not each.isprintable()]
    if broken:
        raise impossible(
            f"{len(broken)} ids are not valid Hull ids.",
            "Copy the id from the end of the address of its page in Hull.",
        )
    return ids


def as_hull_ids(session: Session, connector_key: int, entity: Entity, given: Sequence[str]) -> tuple[str, ...]:
    """Replace e-mails by the Hull ids of the known records. Raises OperationError for e-mails without exactly one record."""
    emails = {each: email_spelling(each) for each in given if "@" in each}
    found = identifier_search.find_by_emails(session, connector_key, entity, set(emails.values())) if emails else {}
    known = {each: hull_ids for each, email in emails.items() if len(hull_ids := found.get(email, set())) == 1}
    unknown = [each for each in emails if each not in known]
    if unknown:
        noun = entity.hull.capitalize()
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise impossible(
            f"There is not exactly one {noun} with {', '.join(unknown[:3])}{more}.", f"Use the Hull id of the {noun}."
        )
    return tuple(dict.fromkeys(next(iter(known[each])) if each in known else each for each in given))


def count_chosen(connector: Connector, choice: Choice) -> int:
    """Return how many of the chosen records Hull has: Hull counts, so unknown ids are left out. Raises OperationError."""
    try:
        return sends.count(connector.key, choice.entity, choice.segment, choice.ids)
    except ConfigurationError as error:
        raise impossible("Hull does not accept the connector's credentials.", "Open Credentials.") from error
    except PipelineError as error:
        raise impossible(f"Hull could not be queried: {error.reason}.", "Try again in a moment.") from error


def find_known(session: Session, connector_key: int, entity: Entity, text: str) -> list[KnownRecord]:
    """Return known Users or Accounts by the value of a claim, in any spelling, or by an id."""
    for spelling in dict.fromkeys((text, plain(text), email_spelling(text), registrable_domain(text))):
        if spelling and (found := identifier_search.find_joined(session, connector_key, entity, spelling)):
            return found
    return []


def latest_sends(session: Session, connector_key: int) -> list[SendingShape]:
    """Return recent sends, newest first."""
    return [_sending(row) for row in job.latest_jobs(session, connector_key, [SEND])]


def _sending(row: Job) -> SendingShape:
    done, of, missing = sends.progress_of(row)
    return SendingShape(
        id=row.id,
        state={"due": "running"}.get(row.state, row.state),
        reason=row.reason,
        done=done,
        of=of,
        missing=missing,
        requested_at=row.created_at,
        ended_at=row.ended_at,
    )
