"""All states of Pipedrive's records, and what Hull must show of them.

A journal receives every change of the company and keeps each state of each record with its start. It compares Hull with these
states and uses no code of the pipeline: this module names and reads the attributes itself.
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
    """All states of all records.

    fields  entity → codes of the mapped fields
    states  (start, record) in their order; None replaces a deleted record
    """

    fields: Mapping[str, tuple[str, ...]]
    states: dict[Key, list[tuple[float, Record | None]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, entity: str, record_id: int, moment: float, state: Record | None) -> None:
        """Add a state that starts now."""
        self.states[entity, record_id].append((moment, state))

    def existing(self, entity: str) -> set[int]:
        """Return the ids of the records that exist now."""
        return {
            number for (kind, number), states in self.states.items() if kind == entity and states[-1][1] is not None
        }

    def current(self, entity: str, record_id: int) -> Record:
        """Return a record as it is now; empty if it does not exist."""
        return self.states.get((entity, record_id), [(0.0, None)])[-1][1] or {}

    def outdated(self, entity: str, held: Mapping[int, Record], moment: float) -> Iterator[int]:
        """Give the ids of the records that Hull shows neither as they were at a moment nor in a later state.

        held  Pipedrive id → User or Account, with `organization`: the Pipedrive id of a User's Account
        Records that were deleted since that moment are left out.
        """
        for (kind, record_id), states in list(self.states.items()):
            if kind == entity and (since := _since(states, moment)) and None not in since:
                shown = held.get(record_id)
                if shown is None or not any(self.shows(entity, shown, state) for state in since if state is not None):
                    yield record_id

    def edited(self, entity: str, after: float, until: float, rested_s: float) -> set[int]:
        """Return the ids of records with mapped values that changed between two moments and then stayed for `rested_s`."""
        found = set()
        for (kind, record_id), all_states in self.states.items():
            states = [(began, state) for began, state in all_states if began <= until]
            if kind != entity or not states or not after < states[-1][0] <= until - rested_s:
                continue
            was, became = _since(states, after)[:1], states[-1][1]
            if became is not None and [self._mapped(entity, became)] != [
                self._mapped(entity, each or {}) for each in was
            ]:
                found.add(record_id)
        return found

    def _mapped(self, entity: str, state: Record) -> list[str | None]:
        return [_plain(_value(state, code)) for code in (*self.fields[entity], "org_id")]

    def shows(self, entity: str, held: Record, state: Record) -> bool:
        """Return whether a User or Account shows a state of its record: each field, and its Organization.

        A restored record may name an Organization that was deleted; its Account has no id then.
        """
        return not self.differences(entity, held, state)

    def differences(self, entity: str, held: Record, state: Record) -> dict[str, tuple[Any, Any]]:
        """Return attribute → (value of the state, value in Hull) where the two differ."""
        expected = {f"pipedrive/{code}": _value(state, code) for code in self.fields[entity]}
        found = {
            name: (value, held.get(name)) for name, value in expected.items() if _plain(held.get(name)) != _plain(value)
        }
        organization_id = state.get("org_id")
        if held.get("organization") != organization_id and self.current("organization", organization_id or 0):
            found["organization"] = (organization_id, held.get("organization"))
        return found


def joined(users: Iterable[Record], accounts: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """Return entity → Pipedrive id → record of Hull's export. Each User has the Pipedrive id of its Account as `organization`.

    Raises: ValueError if two records have the same id.
    """
    kept = {account["id"]: account for account in accounts}
    people = [{**user, "organization": kept.get(user.get("account_id"), {}).get("pipedrive/id")} for user in users]
    return {"person": _by_id(people), "organization": _by_id(kept.values())}


def _by_id(found: Iterable[Record]) -> dict[int, Record]:
    by_id: dict[int, Record] = {}
    for each in found:
        number = each.get("pipedrive/id")
        if number in by_id:
            raise ValueError(f"two records have the Pipedrive id {number}")
        if number is not None:
            by_id[number] = each
    return by_id


def _since(states: list[tuple[float, Record | None]], moment: float) -> list[Record | None]:
    """Return the state at a moment and all later ones; empty if there was none at that moment."""
    begun = sum(1 for began, _ in states if began <= moment)
    return [state for _, state in states[begun - 1 :]] if begun else []


def _value(state: Record, code: str) -> Any:
    """Return a field as Hull must show it: of several addresses or numbers the primary one, else the first."""
    if code in CONTACTS:
        held = state.get(CONTACTS[code]) or []
        first = next((each for each in held if each.get("primary")), held[0] if held else {})
        return first.get("value")
    custom = state.get("custom_fields") or {}
    return custom[code] if code in custom else state.get(code)


def _plain(value: Any) -> str | None:
    """Return one spelling for 12, 12.0 and "12", and None for all empty values."""
    if value is None or value in ("", []):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
