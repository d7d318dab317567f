"""Query Pipedrive's search for a claim. The index may lag, so this is used only until the local index is complete."""

from __future__ import annotations

from typing import Final

from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Claim, Entity
from pipeline.domain.texts import shown_host
from pipeline.extract.pages import id_of

SEARCHABLE: Final = frozenset({"address", "varchar", "text", "varchar_auto", "double", "monetary", "phone"})
"""Types of custom fields that the search knows: https://developers.pipedrive.com/docs/api/v1/Persons#searchPersons."""


def search_claim(
    pipedrive: PipedriveClient, entity: Entity, claim: str, field: tuple[str, str, bool] | None, value: str
) -> list[int] | None:
    """Return ids of the records that the search finds for a whole value.

    field    (key, type, whether it is a custom field) of the field with the claim
    Returns  None if the search cannot tell: it does not know the field, or the field has a web site and the claim is a
             domain, of which only a whole value would be found. 20 tokens, twice for a host with two spellings.
    """
    fields = None if claim == Claim.DOMAIN else _fields(entity, field)
    if fields is None:
        return None
    spellings = dict.fromkeys((value, _as_shown(value) if claim == Claim.EMAIL else value))
    items = [item for spelling in spellings for item in pipedrive.search(entity, spelling, fields=fields)]
    return sorted({found for item in items if (found := id_of(item)) is not None})


def _as_shown(email: str) -> str:
    """The e-mail as people write its host: the search compares letters, and knows nothing of `xn--`."""
    mailbox, at, host = email.rpartition("@")
    return f"{mailbox}{at}{shown_host(host)}"


def _fields(entity: Entity, field: tuple[str, str, bool] | None) -> str | None:
    if field is None:
        return None
    key, kind, is_custom = field
    if is_custom:
        return "custom_fields" if kind in SEARCHABLE else None
    if key == "emails" and entity is Entity.PERSON:
        return "email"
    return {"phones": "phone", "notes": "notes"}.get(key)
