"""Reads options: the labels of enum, set and label fields, or their ids on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.errors import Rejected
from pipeline.transform.reading.simple import bounded, read_id, wrong
from pipeline.transform.texts import HULL_VALUE_BYTES, hull_text


def enum_reader(options: Mapping[int | str, str]) -> Callable[[Any], Any]:
    labels = _by_any_id(options)

    def read_enum(raw: Any) -> str | None:
        if type(raw) is int or type(raw) is str:
            label = labels.get(raw)
            if label is not None:
                return label
            if raw == "":
                return None
        return _given_label(raw, labels)

    return read_enum


def set_reader(options: Mapping[int | str, str]) -> Callable[[Any], Any]:
    """Read a set in the order of its definition, since the two ways a set arrives need not agree on an order."""
    labels = _by_any_id(options)
    positions = {label: position for position, label in enumerate(options.values())}
    longest = max((len(label.encode(errors="replace")) for label in positions), default=0)
    surely_short = (HULL_VALUE_BYTES - 2) // (2 * longest + 3)

    def place(label: str) -> tuple[int, str]:
        return positions.get(label, len(positions)), label

    def read_set(raw: Any) -> list[str] | None:
        if type(raw) is not list:
            raw = _items(raw)
        found = {_given_label(item, labels) for item in raw}
        ordered = list(found) if len(found) < 2 else sorted(found, key=place)
        return ordered or None if len(ordered) <= surely_short else bounded(ordered)

    return read_set


def options_reader(options: Mapping[int | str, str]) -> Callable[[Any], Any]:
    """Read a field of a type this project knows nothing of by the options its definition has: one of them, or a list."""
    read_one, read_several = enum_reader(options), set_reader(options)
    return lambda raw: read_several(raw) if type(raw) is list else read_one(raw)


def read_plain_ids(raw: Any) -> Any:
    """The same by ids."""
    return read_ids(raw) if type(raw) is list else read_id(raw)


def read_ids(raw: Any) -> list[int | str] | None:
    ids = {found for found in map(read_id, _items(raw)) if found is not None}
    return bounded(sorted(ids, key=lambda found: (type(found) is str, found)))  # type: ignore[no-any-return]


def _by_any_id(options: Mapping[int | str, str]) -> dict[int | str, str]:
    """Labels by number and by digits: a few places spell the same id as text."""
    labels: dict[int | str, str] = dict(options)
    for key, label in options.items():
        digits = str(key)
        labels.setdefault(digits, label)
        if digits.isascii() and digits.isdigit():
            labels.setdefault(int(digits), label)
    return labels


def _given_label(raw: Any, labels: Mapping[int | str, str]) -> str:
    """Find the label of an option given as id or as `{id, label}`; the definition's label wins over the given one."""
    if type(raw) is int and raw in labels:
        return labels[raw]
    given: Any = None
    if type(raw) is dict:
        raw, given = raw.get("id"), raw.get("label")
    if type(raw) not in (int, str):
        raise wrong("an option", raw)
    label = labels.get(raw)
    if label is None and type(given) is str:
        label = hull_text(given)
    if label is None:
        raise Rejected("option_unknown", "the field's definition lists no such option")
    return label


def _items(raw: Any) -> Iterable[Any]:
    """Give the members of a set: a list, one member alone, or ids in one text as `1,2`."""
    if type(raw) is list:
        return raw
    if type(raw) is str:
        return [part.strip() for part in raw.split(",") if part.strip()]
    if type(raw) is int or type(raw) is dict:
        return [raw]
    raise wrong("a list", raw)
