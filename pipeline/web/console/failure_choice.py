"""The filter of failures of a page, from its address, so that the address can be shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from pydantic import ValidationError
from werkzeug.datastructures import MultiDict

from db.connector import Connector
from db.failure_filter import FailureFilter
from pipeline.domain.times import read_moment
from pipeline.operations.failures import FailuresChosen, GroupsAsked
from pipeline.web.console.calls import mistakes_of

MOMENTS: Final = ("since", "until")
NAMES: Final = tuple(name for name in GroupsAsked.model_fields if name not in ("connector", "ids"))
SPANS: Final = (("1h", "the last hour"), ("24h", "the last 24 hours"), ("7d", "the last 7 days"))
SHOWN: Final[Mapping[str, str]] = {"fingerprint": "group", "entity": "of", "settings_version": "settings version"}
"""Part of a filter → the word that people read, where it is another one."""


class NotAFilter(Exception):
    """A part of the address is invalid; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureChoice:
    """The filter of a page.

    chosen  as operations use it
    filter  as the database uses it
    given   the given parts, as in the address
    """

    chosen: FailuresChosen
    filter: FailureFilter
    given: Mapping[str, str]

    @property
    def query(self) -> str:
        """The address's part behind the question mark."""
        return urlencode([*self.given.items(), *(("id", each) for each in self.filter.ids)])

    @property
    def words(self) -> str:
        """What is meant, as part of a sentence; empty for everything that is open."""
        parts = [
            f"{SHOWN.get(name, name)} {value.replace('T', ' ')}"
            for name, value in self.given.items()
            if (name, value) != ("state", "open")
        ]
        if self.filter.ids:
            some = self.filter.ids
            parts.append(f"failure {some[0]}" if len(some) == 1 else f"{len(some)} failures by their numbers")
        return ", ".join(parts)


def read_choice(connector: Connector, given: MultiDict[str, str], **fixed: str) -> FailureChoice:
    """Read the filter of an address or a form. Raises NotAFilter."""
    kept = {name: given[name].strip() for name in NAMES if given.get(name, "").strip()} | fixed
    ids = sorted({each.strip() for each in given.getlist("id") if each.strip()}, key=lambda each: (len(each), each))
    moments = {name: _moment(kept[name]) for name in MOMENTS if name in kept}
    try:
        asked = GroupsAsked.model_validate({"connector": connector.name, **kept, **moments, "ids": ids})
    except ValidationError as error:
        raise NotAFilter(f"{'; '.join(mistakes_of(error))}.") from None
    chosen = FailuresChosen(**{name: getattr(asked, name) for name in FailuresChosen.model_fields})
    return FailureChoice(chosen=chosen, filter=chosen.filter(connector.key, asked.chosen_state), given=kept)


def _moment(given: str) -> datetime:
    """Whole minutes, so that viewers share answers."""
    try:
        return read_moment(given, datetime.now(UTC).replace(second=0, microsecond=0))
    except ValueError as error:
        raise NotAFilter(str(error)) from None
