"""How two versions of the settings differ, in words, row by row. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.fields import FieldCatalog
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import AttributeMapping, ClaimRule, ConnectorSettings
from pipeline.insight.conversion_words import direction_of, entity_of, field_name, row_words

Catalogs = Mapping[Entity, FieldCatalog]

TITLES: Final[Mapping[str, str]] = {
    "user_claims": "User identity",
    "account_claims": "Account identity",
    "incoming_user_attributes": "Incoming user attributes",
    "incoming_account_attributes": "Incoming account attributes",
    "outgoing_user_attributes": "Outgoing user attributes",
    "outgoing_account_attributes": "Outgoing account attributes",
    "synchronized_user_segments": "Outgoing user segments",
    "synchronized_account_segments": "Outgoing account segments",
    "link_users_in_hull": "Link Users to Accounts in Hull",
    "link_users_in_service": "Link Persons to Organizations in Pipedrive",
    "support_user_deletion": "Mark Users whose Person is deleted",
    "support_account_deletion": "Mark Accounts whose Organization is deleted",
    "ignore_deleted_users": "Leave out Users whose Person is deleted",
    "ignore_deleted_accounts": "Leave out Accounts whose Organization is deleted",
    "user_sync_key": "Field that keeps a User's Hull id",
    "account_sync_key": "Field that keeps an Account's Hull id",
    "deletion_stop_share": "Share of records that may be missing at once",
    "full_fetch_cron": "When to fetch everything",
    "incremental_minutes": "Minutes between fetches of what changed",
    "daily_tokens": "Pipedrive's API tokens a day",
    "live_reserve": "Share of them kept for changes as they happen",
    "change_stop_share": "Share of records that new settings may touch at once",
}
"""Setting → how people call it; the guide's own words where it has any. One that is missing fails a test."""

ADDED: Final = "added"
REMOVED: Final = "removed"
CHANGED: Final = "changed"
RULES: Final[Mapping[str, str]] = {"on_null": "when empty", "form": "as", "parts": "parts", "owner": "last word"}
VALUES: Final[Mapping[Any, str]] = {
    "clear": "clear",
    "ignore": "leave as it is",
    "default": "label or primary value",
    "id": "id",
    "list": "whole list",
    "hull": "Hull",
    "pipedrive": "Pipedrive",
    "latest": "whoever changed it last",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """One thing that differs.

    kind    `added`, `removed`, `changed`
    what    the row, or empty where the setting has one value
    before  in words; empty for what was added
    after   in words; empty for what was removed
    """

    setting: str
    title: str
    kind: str
    what: str
    before: str
    after: str

    @property
    def sentence(self) -> str:
        """The same in one line, for a command or a log of an audit."""
        if self.kind == CHANGED:
            return f"{self.title}: {self.what + ', ' if self.what else ''}{self.before} → {self.after}"
        return f"{self.title}: {self.kind} {self.what}"


def difference(before: ConnectorSettings, after: ConnectorSettings, catalogs: Catalogs) -> tuple[SettingChange, ...]:
    """What changes from one to the other, in the order of the settings; defaults count as what they are."""
    return tuple(
        change
        for setting in ConnectorSettings.model_fields
        if getattr(before, setting) != getattr(after, setting)
        for change in _changes(setting, getattr(before, setting), getattr(after, setting), catalogs)
    )


def value_words(setting: str, value: Any) -> str:
    """A setting's one value in words."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in ("", 0) and setting in _NONE:
        return _NONE[setting]
    if setting in ("live_reserve", "deletion_stop_share", "change_stop_share"):
        return f"{value:.0%}"
    if setting == "daily_tokens":
        return f"{value:,}"
    return str(value)


_NONE: Final[Mapping[str, str]] = {
    "full_fetch_cron": "never",
    "incremental_minutes": "never",
    "daily_tokens": "no limit",
    "user_sync_key": "none",
    "account_sync_key": "none",
}


def _changes(setting: str, before: Any, after: Any, catalogs: Catalogs) -> Iterator[SettingChange]:
    if not isinstance(before, tuple):
        words = (value_words(setting, before), value_words(setting, after))
        yield _change(setting, CHANGED, "", *words)
        return
    named_before, named_after = (_by_name(setting, rows, catalogs) for rows in (before, after))
    for key, (what, row) in named_before.items():
        if key not in named_after:
            yield _change(setting, REMOVED, what, what, "")
        elif row != named_after[key][1]:
            yield from _rules(setting, what, row, named_after[key][1])
    for key, (what, _) in named_after.items():
        if key not in named_before:
            yield _change(setting, ADDED, what, "", what)
    if list(named_before) != list(named_after) and named_before.keys() == named_after.keys():
        yield _change(setting, CHANGED, "", "one order", "another order")


def _by_name(setting: str, rows: tuple[Any, ...], catalogs: Catalogs) -> dict[Any, tuple[str, Any]]:
    """What makes a row the same one → (the row in words, the row)."""
    catalog = catalogs[entity_of(setting)]
    found: dict[Any, tuple[str, Any]] = {}
    for row in rows:
        if isinstance(row, AttributeMapping):
            words = row_words(row, direction_of(setting), catalog)
        elif isinstance(row, ClaimRule):
            words = f"{row.hull.value} ← {field_name(row.service, catalog)}"
        else:
            words = str(row)
        found[(row.hull, row.service) if not isinstance(row, str) else row] = (words, row)
    return found


def _rules(setting: str, what: str, before: AttributeMapping, after: AttributeMapping) -> Iterator[SettingChange]:
    for rule, name in RULES.items():
        old, new = getattr(before, rule), getattr(after, rule)
        if old != new:
            yield _change(setting, CHANGED, f"{what}, {name}", _rule_words(old), _rule_words(new))


def _rule_words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return VALUES.get(value, str(value))


def _change(setting: str, kind: str, what: str, before: str, after: str) -> SettingChange:
    return SettingChange(setting=setting, title=TITLES[setting], kind=kind, what=what, before=before, after=after)
