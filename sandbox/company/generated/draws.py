"""What generated Persons and Organizations have in common: numbers that follow from (seed, entity, id), and their writing.

A body is pieced together from pools by those numbers: about 12 µs for two kilobytes, so that a pristine record need not be
stored at all.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from sandbox.company.fields import Entity, Field
from sandbox.company.generated import values

TWO_YEARS_S = 2 * 365 * 86_400
_DRAWS = struct.Struct("<2I28H")
_CUSTOM_DRAWS = struct.Struct("<32H")
MASK = values.POOL_SIZE - 1
_DAYS: dict[int, bytes] = {}
_MINUTES = tuple(b"%02d:%02d:" % divmod(minute, 60) for minute in range(1440))
_SECONDS = tuple(b"%02dZ" % second for second in range(60))
# Sixteen draws: half of all records carry no label.
LABELS = (*[b"[]"] * 8, b"[1]", b"[1]", b"[2]", b"[2]", b"[3]", b"[4]", b"[1,3]", b"[2,4]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How much of what is found in the company, each between 0 and 1."""

    no_organization: float = 0.2
    no_email: float = 0.05
    several_emails: float = 0.12  # the primary one is not the first
    duplicate_email: float = 0.01  # the address of an earlier Person
    odd_case_email: float = 0.03
    no_phone: float = 0.15
    several_phones: float = 0.1
    non_latin: float = 0.05
    hostile: float = 0.005
    deleted: float = 0.01
    no_domain: float = 0.1
    shared_domain: float = 0.02  # the domain of the Organization before
    name_is_domain: float = 0.05


class Facts(NamedTuple):
    """The columns of a record: times in epoch seconds, references or None."""

    id: int
    add_time: int
    update_time: int
    owner_id: int
    org_id: int | None
    is_deleted: int


def rfc3339(moment: int) -> bytes:
    """Write epoch seconds as the API does: 2026-01-10T08:00:00Z."""
    day, second = divmod(moment, 86_400)
    prefix = _DAYS.get(day)
    if prefix is None:
        prefix = _DAYS[day] = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%dT").encode()
    return prefix + _MINUTES[second // 60] + _SECONDS[second % 60]


def threshold(share: float) -> int:
    """Turn a share into the 16-bit number below which it lies."""
    return round(share * 65_536)


def inner(text: str) -> bytes:
    """Escape text for use between the quotes of a JSON string."""
    return orjson.dumps(text)[1:-1]


class Draws:
    """Numbers that follow from (seed, entity, id)."""

    def __init__(self, seed: int, entity: Entity) -> None:
        self._key = f"{entity}:{seed}".encode()[:64]

    def general(self, record_id: int) -> tuple[int, ...]:
        """Two 32-bit numbers, then twenty-eight of 16 bits."""
        digest = hashlib.blake2b(record_id.to_bytes(8, "little"), key=self._key).digest()
        return _DRAWS.unpack(digest)

    def custom(self, record_id: int) -> tuple[int, ...]:
        """Thirty-two 16-bit numbers, independent of `general`."""
        digest = hashlib.blake2b(record_id.to_bytes(8, "little"), key=self._key, salt=b"custom").digest()
        return _CUSTOM_DRAWS.unpack(digest)


class CustomFieldsWriter:
    """Write the `custom_fields` object of generated records."""

    def __init__(self, fields: list[Field], seed: int, ids: values.Range, computed: tuple[str, ...]) -> None:
        self.computed = {field.name: field.code.encode() for field in fields if field.custom and field.name in computed}
        pooled = [field for field in fields if field.custom and field.name not in self.computed]
        self._pools = [values.custom_value_pool(seed, field, ids) for field in pooled]
        self._rounds = range(0, len(self._pools), 32)

    def write(self, draws: tuple[int, ...], computed: list[bytes]) -> bytes:
        """Join the computed members with one from each pool; more than 32 pools use the numbers again."""
        pools = self._pools
        for start in self._rounds:
            chosen = pools[start : start + 32] if start or len(pools) > 32 else pools
            computed += [pool[(n + start) & MASK] for pool, n in zip(chosen, draws, strict=False)]
        return b",".join(computed)


def times(u: tuple[int, ...], now_s: int) -> tuple[int, int]:
    """Place a record's making and last change within the two years before `now_s`."""
    added = now_s - TWO_YEARS_S + u[0] % (TWO_YEARS_S - 60)
    return added, added + u[1] % (now_s - added - 1)
