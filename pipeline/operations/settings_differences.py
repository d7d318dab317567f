"""The settings as text: with defaults, one row per line, and their differences as sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from typing import Any, Final

from pipeline.domain.fields import FieldCatalog
from pipeline.domain.kinds import Entity
from pipeline.domain.setting_texts import TITLES
from pipeline.domain.settings import AttributeMapping, ClaimRule, ConnectorSettings, SettingsRefused, read_settings
from pipeline.operations.conversions import direction_of, entity_of, field_name, row_words
from pipeline.operations.models import Shape


def effective(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the default of every omitted setting; rows stay without default rules."""
    chosen = read_settings(document)
    whole, short = chosen.model_dump(mode="json"), chosen.model_dump(mode="json", exclude_defaults=True)
    return {
        name: [short_row(row) if isinstance(row, dict) else row for row in value]
        if name in short and isinstance(value, list)
        else value
        for name, value in whole.items()
    }


def short_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without default rules, as people write it."""
    usual = {name: field.default for name, field in AttributeMapping.model_fields.items() if not field.is_required()}
    return {
        name: value
        for name, value in row.items()
        if name not in usual or (tuple(value) if isinstance(value, list) else value) != usual[name]
    }


def pretty(document: Any) -> str:
    """Return a document as JSON with one mapping row per line."""
    lines = []
    for name, value in document.items():
        if isinstance(value, list) and value:
            rows_ = ",\n".join(f"    {json.dumps(each, ensure_ascii=False)}" for each in value)
            lines.append(f"  {json.dumps(name)}: [\n{rows_}\n  ]")
        else:
            lines.append(f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def unified(before: dict[str, Any], after: dict[str, Any], *, old_name: str, new_name: str) -> str:
    """Return a unified diff of two documents; empty if they are equal."""
    old, new = pretty(_effective_or_raw(before)), pretty(_effective_or_raw(after))
    return "\n".join(unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, n=1, lineterm=""))


def changed_names(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of the settings that differ, in alphabetical order."""
    old, new = _effective_or_raw(before), _effective_or_raw(after)
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def _effective_or_raw(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document itself if it is an old version that is not valid any more."""
    try:
        return effective(document)
    except SettingsRefused:
        return document


Catalogs = Mapping[Entity, FieldCatalog]

RULES: Final[Mapping[str, str]] = {"on_null": "when empty", "form": "format", "parts": "parts", "owner": "owner"}
"""Rule of a mapping row → its name."""
VALUES: Final[Mapping[Any, str]] = {
    "clear": "clear",
    "ignore": "keep",
    "default": "label or primary value",
    "id": "id",
    "list": "whole list",
    "hull": "Hull",
    "pipedrive": "Pipedrive",
    "latest": "latest change",
}


class SettingChangeShape(Shape):
    """One difference between two versions; `kind` is `added`, `removed` or `changed`."""

    setting: str
    title: str
    kind: str
    what: str
    before: str
    after: str
    sentence: str


def difference(before: ConnectorSettings, after: ConnectorSettings, catalogs: Catalogs) -> list[SettingChangeShape]:
    """Return the differences in the order of the settings. An omitted setting equals its default."""
    return [
        change
        for setting in ConnectorSettings.model_fields
        if getattr(before, setting) != getattr(after, setting)
        for change in _changes(setting, getattr(before, setting), getattr(after, setting), catalogs)
    ]


def value_words(setting: str, value: Any) -> str:
    """Return the value of a setting as text."""
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


def _changes(setting: str, before: Any, after: Any, catalogs: Catalogs) -> Iterator[SettingChangeShape]:
    if not isinstance(before, tuple):
        yield _change(setting, "changed", "", value_words(setting, before), value_words(setting, after))
        return
    named_before, named_after = (_by_name(setting, rows, catalogs) for rows in (before, after))
    for key, (name, row) in named_before.items():
        if key not in named_after:
            yield _change(setting, "removed", name, name, "")
        elif row != named_after[key][1]:
            for rule, title in RULES.items():
                old, new = _rule_words(getattr(row, rule)), _rule_words(getattr(named_after[key][1], rule))
                if old != new:
                    yield _change(setting, "changed", f"{name}, {title}", old, new)
    for key, (name, _) in named_after.items():
        if key not in named_before:
            yield _change(setting, "added", name, "", name)
    if list(named_before) != list(named_after) and named_before.keys() == named_after.keys():
        yield _change(setting, "changed", "", "one order", "another order")


def _by_name(setting: str, rows: tuple[Any, ...], catalogs: Catalogs) -> dict[Any, tuple[str, Any]]:
    """Return identity of a row → (its name, the row)."""
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


def _rule_words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return VALUES.get(value, str(value))


def _change(setting: str, kind: str, what: str, before: str, after: str) -> SettingChangeShape:
    title = TITLES[setting]
    sentence = f"{title}: {kind} {what}"
    if kind == "changed":
        sentence = f"{title}: {what + ', ' if what else ''}{before} → {after}"
    return SettingChangeShape(
        setting=setting, title=title, kind=kind, what=what, before=before, after=after, sentence=sentence
    )
