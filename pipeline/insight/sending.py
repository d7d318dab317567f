"""The action "Send to Pipedrive": the selection, its size, and the progress of sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from db import job, known_as
from db.connector import Connector
from db.job import Job
from db.known_as import KnownRecord
from pipeline.domain.kinds import Entity
from pipeline.domain.texts import email_spelling, plain
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.insight.acts import Impossible
from pipeline.jobs import sends
from pipeline.sync.job_queue import SEND
from pipeline.transform.identifiers import registrable_domain

WRITE_TOKENS: Final = 5
"""What one update or create takes of the day; a record in which nothing differs takes none."""
LONGEST_ID: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Users or Accounts: these Hull ids, or everybody in a segment."""

    entity: Entity
    ids: tuple[str, ...] = ()
    segment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How far an order is; of how many is not known before its first page.

    missing  ids that Hull does not have, so that nothing was sent for them
    """

    id: int
    state: str
    reason: str | None
    done: int
    of: int | None
    missing: int
    asked_at: datetime
    ended_at: datetime | None


def read_ids(text: str) -> tuple[str, ...]:
    """Ids as people paste them, apart by spaces, commas or lines; each once.

    Raises: Impossible.
    """
    ids = tuple(dict.fromkeys(text.replace(",", " ").replace(";", " ").split()))
    if len(ids) > sends.MOST_IDS:
        raise Impossible(f"These are {len(ids):,} ids; {sends.MOST_IDS:,} go at once.", "Send a segment instead.")
    broken = [each for each in ids if len(each) > LONGEST_ID or not each.isprintable()]
    if broken:
        raise Impossible(f"{len(broken)} of them are no ids of Hull.", "An id stands at the end of a page's address.")
    return ids


def as_hull_ids(session: Session, connector_key: int, entity: Entity, given: Sequence[str]) -> tuple[str, ...]:
    """Replace e-mails by the Hull ids of the known records.

    Raises: Impossible, with the e-mails that do not match exactly one record.
    """
    emails = {each: email_spelling(each) for each in given if "@" in each}
    found = known_as.find_by_emails(session, connector_key, entity, set(emails.values())) if emails else {}
    known = {each: hull_ids for each, email in emails.items() if len(hull_ids := found.get(email, set())) == 1}
    unknown = [each for each in emails if each not in known]
    if unknown:
        noun = entity.hull.capitalize()
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise Impossible(
            f"No single {noun} is known by {', '.join(unknown[:3])}{more}.", f"Name the {noun} by its Hull id."
        )
    return tuple(dict.fromkeys(next(iter(known[each])) if each in known else each for each in given))


def count(connector: Connector, choice: Choice) -> int:
    """Return how many Hull has of those that were chosen. Hull counts, so an id it does not know counts for nothing.

    Raises: Impossible.
    """
    try:
        return sends.count(connector.key, choice.entity, choice.segment, choice.ids)
    except ConfigurationError as error:
        raise Impossible("Hull does not accept the connector's credentials.", "Open Credentials.") from error
    except PipelineError as error:
        raise Impossible(f"Hull could not be asked: {error.reason}.", "Try again in a moment.") from error


def find(session: Session, connector_key: int, entity: Entity, said: str) -> list[KnownRecord]:
    """Known Users or Accounts by a claim's value or an id, however it is spelled."""
    for spelling in dict.fromkeys((said, plain(said), email_spelling(said), registrable_domain(said))):
        if spelling and (found := known_as.find_joined(session, connector_key, entity, spelling)):
            return found
    return []


def latest(session: Session, connector_key: int) -> list[Sending]:
    """Return recent sends, newest first."""
    return [_sending(row) for row in job.latest_jobs(session, connector_key, [SEND])]


def _sending(row: Job) -> Sending:
    done, of, missing = sends.handed_over(row)
    return Sending(
        id=row.id,
        state={"due": "running"}.get(row.state, row.state),
        reason=row.reason,
        done=done,
        of=of,
        missing=missing,
        asked_at=row.created_at,
        ended_at=row.ended_at,
    )
