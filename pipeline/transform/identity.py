"""By what a User or an Account is looked up in Pipedrive: the claims of the settings, in their order, normalised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.domain.kinds import Claim, Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.errors import Rejected
from pipeline.transform.claims import CLAIMS, SYNC_KEY
from pipeline.transform.hull_reports import find_attribute
from pipeline.transform.writing.targets import is_blank


def claims_of(report: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> tuple[tuple[str, str], ...]:
    """Give (claim, value) for every claim of the settings that the report has a usable value of, a key of our own first.

    A value that identifies nobody (no e-mail at all, a domain that many share) is left out: it must not find anybody.
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
