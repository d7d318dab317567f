"""Reads a User or an Account as Hull reports it: one flat object, for a User with its Account below `account`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.kinds import Entity
from pipeline.domain.times import epoch_milliseconds
from pipeline.errors import Rejected

ABSENT: Final = object()
"""Marks an attribute that is missing in the report, which differs from None."""

_PREFIX: Final = "pipedrive:"


def attribute_name(hull: str) -> str:
    """Give the name under which Hull stores an attribute: its lists put `traits_` before it, its records need not."""
    return hull.removeprefix("traits_") or hull


def find_attribute(report: Mapping[str, Any], path: str) -> Any:
    """Find the value of an attribute, `name` or `account.name`; ABSENT when the report does not have it."""
    if path.startswith("account."):
        account = report.get("account")
        return find_attribute(account, path.removeprefix("account.")) if isinstance(account, dict) else ABSENT
    name = attribute_name(path)
    return report.get(name, report.get(f"traits_{name}", ABSENT))


def hull_id_of(report: Mapping[str, Any]) -> str:
    """Get the id Hull gave the record.

    Raises: Rejected("no_hull_id").
    """
    hull_id = report.get("id")
    if not isinstance(hull_id, str) or not hull_id.strip() or len(hull_id) > 255 or not hull_id.isprintable():
        raise Rejected("no_hull_id", "the report carries no id")
    return hull_id


def pipedrive_ids_of(report: Mapping[str, Any]) -> tuple[int, ...]:
    """Give every Pipedrive id the report names, the attribute `pipedrive/id` first.

    More than one means that Hull merged records which are still two in Pipedrive.
    """
    first = read_id(find_attribute(report, "pipedrive/id"))
    return tuple(dict.fromkeys([*(() if first is None else (first,)), *anonymous_pipedrive_ids(report)]))


def anonymous_pipedrive_ids(report: Mapping[str, Any]) -> tuple[int, ...]:
    """Give the Pipedrive ids among the report's anonymous ids: each belongs to one User or Account of Hull alone."""
    names = report.get("anonymous_ids")
    ours = [
        name.removeprefix(_PREFIX)
        for name in [*(names if isinstance(names, list) else ()), report.get("anonymous_id")]
        if isinstance(name, str) and name.startswith(_PREFIX)
    ]
    return tuple(dict.fromkeys(number for number in map(read_id, ours) if number is not None))


def pipedrive_id_of(report: Mapping[str, Any]) -> int | None:
    """Find the id of the record's counterpart in Pipedrive, as far as Hull knows it."""
    return next(iter(pipedrive_ids_of(report)), None)


def read_id(value: Any) -> int | None:
    """Read a Pipedrive id as Hull may hold it: a number, or digits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    return value if type(value) is int and 0 < value < 2**63 else None


def reported_at(report: Mapping[str, Any]) -> int | None:
    """Return when Hull last wrote the report, by its clock, in milliseconds since the epoch; None if it does not say."""
    moments = (epoch_milliseconds(report.get(name)) for name in ("indexed_at", "updated_at"))
    return next((moment for moment in moments if moment is not None), None)


_ITEM: Final = re.compile(r"\[\d+\]$")
_OF_ACCOUNT: Final = "account."


def changed_attributes(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Name the attributes that changed as a mapping names them: those of a User's Account begin with `account.`."""
    own = {plain_name(name) for name in _changed(message, entity.hull)}
    if entity is Entity.ORGANIZATION:
        return own
    return own | {plain_name(_OF_ACCOUNT + name) for name in _changed(message, "account")}


def values_before(message: Mapping[str, Any], entity: Entity, name: str) -> list[Any]:
    """Return the earlier values of a changed attribute, as far as the changes have them."""
    pairs = [pair for changed, pair in _changed(message, entity.hull).items() if attribute_name(changed) == name]
    return [pair[0] for pair in pairs if isinstance(pair, list) and len(pair) == 2]


def plain_name(name: str) -> str:
    """Give the attribute a name means: without `traits_`, and for an item of a list the list."""
    whole = _ITEM.sub("", name)
    if whole.startswith(_OF_ACCOUNT):
        return _OF_ACCOUNT + attribute_name(whole.removeprefix(_OF_ACCOUNT))
    return attribute_name(whole)


def account_linked(message: Mapping[str, Any]) -> bool:
    """Return whether a User got another Account, or its Account got a counterpart in Pipedrive."""
    changed = _changed(message, "account")
    linked = changed.get("id")
    is_linked = isinstance(linked, list | dict | str) and bool(linked)
    return is_linked or "pipedrive/id" in {plain_name(name) for name in changed}


def _changed(message: Mapping[str, Any], of: str) -> Mapping[str, Any]:
    changes = message.get("changes")
    changed = changes.get(of) if isinstance(changes, dict) else None
    return changed if isinstance(changed, dict) else {}
