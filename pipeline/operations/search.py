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
"""What can be searched. Names have no index."""


def search(session: Session, connector_key: int, wanted: str) -> list[FoundRecord]:
    """Return the records that this text identifies, each once."""
    text = wanted.strip()[:LONGEST]
    if not text or "\0" in text:
        return []
    found = find_by_ids(session, connector_key, text) + find_by_values(session, connector_key, list(_claims(text)))
    unique: dict[tuple[str, int | None, str | None], FoundRecord] = {}
    for each in found:
        if each.hull_id is None and each.pipedrive_id is not None:
            mapping = record_events.find_record_mapping(session, connector_key, each.entity, each.pipedrive_id, None)
            each = replace(each, hull_id=mapping.hull_id if mapping else None)  # noqa: PLW2901
        unique.setdefault((each.entity, each.pipedrive_id, each.hull_id), each)
    return list(unique.values())


def _claims(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, value) of the identifiers that the text may be, as stored. An e-mail does not find the company of its domain."""
    yield SYNC_KEY, text
    claims = (Claim.EMAIL, Claim.EXTERNAL_ID) if "@" in text else (Claim.EMAIL, Claim.DOMAIN, Claim.EXTERNAL_ID)
    for claim in claims:
        try:
            value = CLAIMS[claim](text)
        except Rejected:
            continue
        if value is not None:
            yield claim.value, value
