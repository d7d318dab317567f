"""Brings the values that identify a record into the one spelling under which they are compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.domain.kinds import Claim, Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.domain.spelling import email_spelling, plain
from pipeline.errors import Rejected
from pipeline.transform.domains import domain_of_name, is_shared_suffix, registrable_domain, shared_hosts
from pipeline.transform.hull_reports import find_attribute, hull_id_of
from pipeline.transform.outgoing_filter import in_segments, in_synchronized_segment, segment_ids
from pipeline.transform.writing.targets import is_blank

_EMAIL: Final = re.compile(
    r"[^@\s\x00-\x1f<>()\[\],;:\"\\]{1,64}@[^@\s\x00-\x1f<>()\[\],;:\"\\.]++(?:\.[^@\s\x00-\x1f<>()\[\],;:\"\\.]++)++"
)
"""Loose on purpose: a claim has to look like one mailbox, not to pass every rule of RFC 5321."""

SHARED: Final = "a host that many organizations share is not used as a claim"

SYNC_KEY: Final = "sync_key"
"""The claim name for a look-up by the Hull id that is stored in a custom field."""

Normalise = Callable[[Any], str | None]


def email_claim(value: Any) -> str | None:
    """Spell an e-mail as it is compared, see `email_spelling`. None for an empty one.

    Raises: Rejected("wrong_type") when it cannot be an e-mail.
    """
    text = email_spelling(str(value))
    if not text:
        return None
    if len(text) > 254 or not _EMAIL.fullmatch(text):
        raise Rejected("wrong_type", "not an e-mail, so it is not used as a claim")
    return text


def other_emails(members: list[Any], primary: str | None) -> tuple[tuple[str, str], ...]:
    """Normalize the usable secondary e-mails of a record, each with the claim for the look-up."""
    if len(members) < 2:
        return ()
    found: dict[tuple[str, str], None] = {}
    for member in members:
        try:
            email = email_claim(member["value"]) if isinstance(member, dict) and member.get("value") else None
        except Rejected:
            continue
        if email is not None and email != primary:
            found[Claim.EMAIL.value, email] = None
    return tuple(found)


def external_id_claim(value: Any) -> str | None:
    """Spell an external id: text as it is compared, case kept; whole numbers without a decimal point."""
    if isinstance(value, (bool, list, dict)):
        raise Rejected("wrong_type", "not one text or number, so it is not used as a claim")
    text = plain(str(value))
    if len(text) > 255:
        raise Rejected("too_long", "more than 255 characters, so it is not used as a claim")
    return text or None


def domain_claim(value: Any) -> str | None:
    """Reduce a web site to its registrable domain.

    Raises: Rejected("wrong_type") for no domain at all, Rejected("shared_domain") for one that many share.
    """
    text = plain(str(value))
    if not text:
        return None
    domain = registrable_domain(text)
    if domain is None and is_shared_suffix(text):
        raise Rejected("shared_domain", SHARED)
    if domain is None:
        raise Rejected("wrong_type", "not a domain, so it is not used as a claim")
    return _own(domain)


def name_domain_claim(value: Any) -> str | None:
    """Use a name as domain only if it is a host name; most names correctly are not."""
    domain = domain_of_name(str(value))
    return None if domain is None else _own(domain)


def _own(domain: str) -> str:
    if domain in shared_hosts():
        raise Rejected("shared_domain", SHARED)
    return domain


CLAIMS: Final[Mapping[Claim, Normalise]] = {
    Claim.EMAIL: email_claim,
    Claim.EXTERNAL_ID: external_id_claim,
    Claim.DOMAIN: domain_claim,
}


def account_to_send(message: Mapping[str, Any], settings: ConnectorSettings) -> dict[str, Any] | None:
    """Return the message about the User's Account; None if a filter stops one of the two.

    A Pipedrive id in it is not reliable yet: the record must be looked up.

    An export without the Account's segments sends the Account as well, because its segments are not known.
    """
    account = message.get("account")
    if not settings.link_users_in_service or not isinstance(account, dict) or not _has_hull_id(account):
        return None
    if not in_segments(message, settings, Entity.PERSON):
        return None
    is_export = message.get("is_export") is True and not _speaks_of_segments(message)
    if not is_export and not in_synchronized_segment(message, settings, Entity.ORGANIZATION):
        return None
    ids = sorted(segment_ids(message, Entity.ORGANIZATION))
    listed = message.get("account_segments")
    return {
        "account": account,
        "account_segments": listed if isinstance(listed, list) else [{"id": each} for each in ids],
        "account_segment_ids": ids,
        "changes": {},
        "is_export": is_export,
    }


def _has_hull_id(account: Mapping[str, Any]) -> bool:
    try:
        return bool(hull_id_of(account))
    except Rejected:  # Hull gives none: nothing could be joined to it
        return False


def _speaks_of_segments(message: Mapping[str, Any]) -> bool:
    return any(isinstance(message.get(name), list) for name in ("account_segments", "account_segment_ids"))


def claims_of(report: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> tuple[tuple[str, str], ...]:
    """Return (claim, value) for every claim of the settings with a usable value in the report, our own key first.

    A value that identifies no record (an invalid e-mail, a shared domain) is left out.
    """
    found = {}
    if settings.sync_key(entity) and isinstance(report.get("id"), str):
        found[SYNC_KEY] = report["id"]
    for rule in settings.claims(entity):
        value = find_attribute(report, rule.hull.value)
        if rule.hull.value in found or is_blank(value):
            continue
        try:
            normal = CLAIMS[Claim(rule.hull)](value)
        except Rejected:
            continue
        if normal is not None:
            found[rule.hull.value] = normal
    return tuple(found.items())
