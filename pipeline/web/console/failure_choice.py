"""Which failures a page is about: the filter as it stands in the address, so that it can be pasted into a chat."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

from db.connector import Connector
from db.failure_filter import FailureFilter
from pipeline.domain.kinds import Direction, Entity

TEXTS: Final = ("reason", "field", "fingerprint")
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "direction": tuple(Direction),
    "entity": tuple(Entity),
    "kind": ("record", "field", "batch", "control"),
    "state": ("open", "replayed", "discarded", "all"),
}
NAMES: Final = (*TEXTS, *CHOICES, "settings_version", "since", "until", "id")
SPANS: Final = (("1h", "the last hour"), ("24h", "the last 24 hours"), ("7d", "the last 7 days"))
_SPAN: Final = re.compile(r"(\d{1,4})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
IDS: Final = 1_000


class NotAFilter(Exception):
    """A part of the address cannot be read; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """given  the parts that were given, as they stand in the address"""

    filter: FailureFilter
    given: Mapping[str, str]

    @property
    def query(self) -> str:
        """The address's part behind the question mark."""
        pairs = [(name, value) for name, value in self.given.items() if name != "id"]
        return urlencode([*pairs, *(("id", each) for each in self.filter.ids)])

    @property
    def words(self) -> str:
        """What is meant, as part of a sentence; empty for everything that is open."""
        told = [
            f"{_SAID.get(name, name)} {value.replace('T', ' ')}"
            for name, value in self.given.items()
            if name != "id" and not (name == "state" and value == "open")
        ]
        if self.filter.ids:
            some = self.filter.ids
            told.append(f"failure {some[0]}" if len(some) == 1 else f"{len(some)} failures by their numbers")
        return ", ".join(told)


_SAID: Final = {"fingerprint": "group", "entity": "of", "settings_version": "settings version"}
"""Part of a filter → how people say it, where that is another word."""


def read_choice(connector: Connector, given: MultiDict[str, str], **fixed: str) -> Choice:
    """The filter of an address or a form. Raises: NotAFilter."""
    kept = {name: given[name].strip() for name in NAMES if given.get(name, "").strip()} | fixed
    exact = {name: kept[name] for name in (*TEXTS, *CHOICES) if name in kept and name != "state"}
    for name, allowed in CHOICES.items():
        if name in kept and kept[name] not in allowed:
            raise NotAFilter(f"{name} is one of {', '.join(allowed)}.")
    state = kept.get("state", "open")
    chosen = FailureFilter(
        connector_key=connector.key,
        ids=_ids(given.getlist("id")),
        settings_version=_number(kept["settings_version"]) if "settings_version" in kept else None,
        since=read_moment(kept["since"]) if "since" in kept else None,
        until=read_moment(kept["until"]) if "until" in kept else None,
        state=None if state == "all" else state,
        **exact,
    )
    return Choice(filter=chosen, given=kept)


def read_moment(given: str) -> datetime:
    """`2h`, `7d`, or a date with or without a time, in UTC; whole minutes, so that viewers share answers. Raises: NotAFilter."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    if span := _SPAN.fullmatch(given):
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        found = datetime.fromisoformat(given)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise NotAFilter("A time is written as 2h, 7d or 2026-11-03T14:00.") from None


def _ids(given: list[str]) -> tuple[int, ...]:
    if len(given) > IDS:
        raise NotAFilter(f"Name up to {IDS} failures, or choose them by a filter.")
    return tuple(sorted({_number(each) for each in given if each.strip()}))


def _number(given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise NotAFilter("A number is written in digits.")
    return int(given)
