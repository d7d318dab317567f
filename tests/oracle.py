"""What Pipedrive was like at any moment, and what Hull must show for it.

A journal hears of every change of the company and keeps each state of each record with the moment it began. What Hull shows
is judged against it without asking the pipeline: attributes are named and read here anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
Key = tuple[str, int]
"""Entity and Pipedrive id."""

CONTACTS = {"email": "emails", "phone": "phones"}


@dataclass(slots=True, kw_only=True)
class Journal:
    """entity → codes of the fields that are mapped, and every state: since when, and what; None once it is gone."""

    fields: Mapping[str, tuple[str, ...]]
    states: dict[Key, list[tuple[float, Record | None]]] = field(default_factory=lambda: defaultdict(list))

    def note(self, entity: str, record_id: int, moment: float, state: Record | None) -> None:
        """A record is like this from now on."""
        self.states[entity, record_id].append((moment, state))

    def alive(self, entity: str) -> set[int]:
        """Ids of the records that are there now."""
        return {
            number for (kind, number), states in self.states.items() if kind == entity and states[-1][1] is not None
        }

    def now(self, entity: str, record_id: int) -> Record:
        """A record as it is, empty when it has gone."""
        return self.states.get((entity, record_id), [(0.0, None)])[-1][1] or {}

    def belied(self, entity: str, held: Mapping[int, Record], moment: float) -> Iterator[int]:
        """Ids of the records of which Hull does not show the state they had at a moment, nor one they have had since.

        held  Pipedrive id → User or Account, with `organization`: the Pipedrive id of a User's Account
        Of a record that has gone meanwhile nothing is asked.
        """
        for (kind, record_id), states in list(self.states.items()):
            if kind == entity and (since := _since(states, moment)) and None not in since:
                shown = held.get(record_id)
                if shown is None or not any(self.shows(entity, shown, state) for state in since if state is not None):
                    yield record_id

    def edited(self, entity: str, after: float, until: float, rested_s: float) -> set[int]:
        """Ids of the records that became another in Hull's words between two moments, and had then stood for `rested_s`."""
        found = set()
        for (kind, record_id), all_states in self.states.items():
            states = [(began, state) for began, state in all_states if began <= until]
            if kind != entity or not states or not after < states[-1][0] <= until - rested_s:
                continue
            was, became = _since(states, after)[:1], states[-1][1]
            if became is not None and [self._words(entity, became)] != [
                self._words(entity, each or {}) for each in was
            ]:
                found.add(record_id)
        return found

    def _words(self, entity: str, state: Record) -> list[str | None]:
        return [_plain(_value(state, code)) for code in (*self.fields[entity], "org_id")]

    def shows(self, entity: str, held: Record, state: Record) -> bool:
        """Whether a User or Account shows a state of its record, field by field, and its Organization.

        One that was restored may name an Organization that went meanwhile: its Account tells no id any more.
        """
        return not self.differences(entity, held, state)

    def differences(self, entity: str, held: Record, state: Record) -> dict[str, tuple[Any, Any]]:
        """Attribute → what a state says and what Hull shows, where these are not one."""
        expected = {f"pipedrive/{code}": _value(state, code) for code in self.fields[entity]}
        found = {
            name: (value, held.get(name)) for name, value in expected.items() if _plain(held.get(name)) != _plain(value)
        }
        organization_id = state.get("org_id")
        if held.get("organization") != organization_id and self.now("organization", organization_id or 0):
            found["organization"] = (organization_id, held.get("organization"))
        return found


def joined(users: Iterable[Record], accounts: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """Entity → Pipedrive id → what Hull exports of it, each User with the Pipedrive id of its Account.

    Raises: ValueError where two carry one id.
    """
    kept = {account["id"]: account for account in accounts}
    people = [{**user, "organization": kept.get(user.get("account_id"), {}).get("pipedrive/id")} for user in users]
    return {"person": _by_id(people), "organization": _by_id(kept.values())}


def _by_id(found: Iterable[Record]) -> dict[int, Record]:
    by_id: dict[int, Record] = {}
    for each in found:
        number = each.get("pipedrive/id")
        if number in by_id:
            raise ValueError(f"two carry the Pipedrive id {number}")
        if number is not None:
            by_id[number] = each
    return by_id


def _since(states: list[tuple[float, Record | None]], moment: float) -> list[Record | None]:
    """The state at a moment, and all later ones; nothing where there was none yet."""
    begun = sum(1 for began, _ in states if began <= moment)
    return [state for _, state in states[begun - 1 :]] if begun else []


def _value(state: Record, code: str) -> Any:
    """A field as Hull is to show it: of several addresses or numbers the first one."""
    if code in CONTACTS:
        held = state.get(CONTACTS[code]) or []
        first = next((each for each in held if each.get("primary")), held[0] if held else {})
        return first.get("value")
    custom = state.get("custom_fields") or {}
    return custom[code] if code in custom else state.get(code)


def _plain(value: Any) -> str | None:
    """12, 12.0 and "12" are one; nothing and empty are too."""
    if value is None or value in ("", []):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
