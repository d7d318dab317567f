"""Find records by an id of either side, an e-mail, a domain, or an external id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from sqlalchemy.orm import Session

from db import record_events
from db.identifier_search import FoundRecord, find_by_ids, find_by_values
from pipeline.domain.kinds import Claim
from pipeline.errors import Rejected
from pipeline.transform.identifiers import CLAIMS, SYNC_KEY

LONGEST: Final = 200
SEARCHED: Final = "a Pipedrive id, a Hull id, an e-mail, a domain, an external id"
"""What can be searched; names cannot, because they have no index."""


def search(session: Session, connector_key: int, wanted: str) -> list[FoundRecord]:
    """Return the records that this text identifies, each once."""
    text = wanted.strip()[:LONGEST]
    if not text or "\0" in text:
        return []
    found = find_by_ids(session, connector_key, text)
    found += find_by_values(session, connector_key, list(_claims(text)))
    first: dict[tuple[str, int | None, str | None], FoundRecord] = {}
    for each in found:
        whole = _with_hull_id(session, connector_key, each)
        first.setdefault((whole.entity, whole.pipedrive_id, whole.hull_id), whole)
    return list(first.values())


def _claims(text: str) -> Iterator[tuple[str, str]]:
    """Yield what the text may identify, as identifiers are stored. An e-mail does not find the company of its domain."""
    yield SYNC_KEY, text
    claims = (Claim.EMAIL, Claim.EXTERNAL_ID) if "@" in text else (Claim.EMAIL, Claim.DOMAIN, Claim.EXTERNAL_ID)
    for claim in claims:
        try:
            value = CLAIMS[claim](text)
        except Rejected:
            continue
        if value is not None:
            yield claim.value, value


def _with_hull_id(session: Session, connector_key: int, found: FoundRecord) -> FoundRecord:
    if found.hull_id is not None or found.pipedrive_id is None:
        return found
    mapping = record_events.find_record_mapping(session, connector_key, found.entity, found.pipedrive_id, None)
    return replace(found, hull_id=mapping.hull_id) if mapping else found
