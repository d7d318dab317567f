"""Pools of ready-encoded JSON values for custom fields and addresses, drawn once per company from its seed.

A generated record picks from these by number, so a two-kilobyte body costs microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import orjson

from sandbox.company import names
from sandbox.company.fields import ADDRESS_PARTS, Field, Option

POOL_SIZE = 512  # a power of two: entries are picked by a bit mask
# Zones of the company's offices and of one customer, by Pipedrive's numbers for them.
ZONES = ((318, "Europe/London"), (310, "Europe/Tallinn"), (94, "America/New_York"), (253, "Asia/Tokyo"))
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "BRL", "SEK")
EMPTY_SHARE = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The ids a reference may name."""

    persons: int
    organizations: int
    users: tuple[int, ...] = field(default=(1,))


def custom_value_pool(seed: int, definition: Field, ids: Range) -> list[bytes]:
    """Make `POOL_SIZE` members of a `custom_fields` object for one field, each `"<code>":<value>`, a share of them null."""
    return _custom_value_pool(seed, definition.code, definition.type, definition.options, ids)


# Kept between companies: a test that makes its own company would otherwise wait for the same pools again.
@lru_cache(maxsize=256)
def _custom_value_pool(seed: int, code: str, kind: str, options: tuple[Option, ...], ids: Range) -> list[bytes]:
    make = _MAKERS.get(kind, _text)
    draw = random.Random(f"{seed}:{code}")
    prefix = b'"%b":' % code.encode()
    return [
        prefix + (b"null" if draw.random() < EMPTY_SHARE else orjson.dumps(make(draw, options, ids)))
        for _ in range(POOL_SIZE)
    ]


@lru_cache(maxsize=8)
def address_pool(seed: int) -> list[bytes]:
    """Make `POOL_SIZE` addresses of Organizations, a share of them null."""
    draw = random.Random(f"{seed}:addresses")
    return [b"null" if draw.random() < 0.15 else orjson.dumps(_address(draw)) for _ in range(POOL_SIZE)]


@lru_cache(maxsize=8)
def phone_pool(seed: int) -> list[bytes]:
    """Make `POOL_SIZE` phone numbers."""
    draw = random.Random(f"{seed}:phones")
    return [orjson.dumps(_phone(draw)) for _ in range(POOL_SIZE)]


def _address(draw: random.Random, *_: object) -> dict[str, Any]:
    street, number, (country, region, locality, postal_code) = draw.choice(names.STREET_PLACES)
    if draw.random() < 0.2:
        return address(f"{locality}, {country}")
    value = f"{street} {number}, {postal_code} {locality}, {country}"
    return address(
        value,
        country=country,
        admin_area_level_1=region,
        locality=locality,
        route=street,
        street_number=number,
        postal_code=postal_code,
        formatted_address=value,
    )


def address(value: str, **parts: str | None) -> dict[str, Any]:
    """Complete an address: a part that was not given is null."""
    return {part: value if part == "value" else parts.get(part) for part in ADDRESS_PARTS}


def _text(draw: random.Random, *_: object) -> str:
    return draw.choice(names.SHORT_TEXTS)


def _long_text(draw: random.Random, *_: object) -> str:
    if draw.random() < 0.004:
        return draw.choice(names.HOSTILE_TEXTS)
    return " ".join(draw.sample(names.SENTENCES, draw.randint(1, 4)))


def _number(draw: random.Random, *_: object) -> float | int:
    return draw.choice((draw.randint(0, 100), round(draw.random() * 1000, 2), -draw.randint(1, 9), 0))


def _phone(draw: random.Random, *_: object) -> str:
    digits = f"{draw.randrange(10**9):09d}"
    return draw.choice(
        (f"+372 {digits[:4]} {digits[4:8]}", f"+49{digits}", f"({digits[:3]}) {digits[3:6]}-{digits[5:]}", digits)
    )


def _day(draw: random.Random) -> date:
    return date(2015, 1, 1) + timedelta(days=draw.randrange(4000))


def _date(draw: random.Random, *_: object) -> str:
    return _day(draw).isoformat()


def _date_range(draw: random.Random, *_: object) -> dict[str, Any]:
    start = _day(draw)
    return {"value": start.isoformat(), "until": (start + timedelta(days=draw.randint(0, 400))).isoformat()}


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def _time(draw: random.Random, *_: object) -> dict[str, Any]:
    zone_id, zone = draw.choice(ZONES)
    return {"value": _clock(draw.randrange(0, 1440, 15)), "timezone_id": zone_id, "timezone_name": zone}


def _time_range(draw: random.Random, *_: object) -> dict[str, Any]:
    start, length = draw.randrange(0, 1200, 15), draw.randrange(15, 240, 15)
    zone_id, zone = draw.choice(ZONES)
    times = {"value": _clock(start), "until": _clock(start + length)}
    return {**times, "timezone_id": zone_id, "timezone_name": zone}


def _choice(draw: random.Random, options: tuple[Option, ...], _: Range) -> int | str | None:
    return draw.choice(options).id if options else None


def _choices(draw: random.Random, options: tuple[Option, ...], _: Range) -> list[int | str] | None:
    if not options:
        return None
    chosen = draw.sample(options, draw.randint(1, min(3, len(options))))
    return [option.id for option in chosen]


def _monetary(draw: random.Random, *_: object) -> dict[str, Any]:
    return {"value": draw.choice((draw.randint(1, 90) * 100, 0, 1999.99)), "currency": draw.choice(CURRENCIES)}


def _organization(draw: random.Random, _: tuple[Option, ...], ids: Range) -> int | None:
    return draw.randint(1, ids.organizations) if ids.organizations else None


def _person(draw: random.Random, _: tuple[Option, ...], ids: Range) -> int | None:
    return draw.randint(1, ids.persons) if ids.persons else None


def _user(draw: random.Random, _: tuple[Option, ...], ids: Range) -> int:
    return draw.choice(ids.users)


_MAKERS: dict[str, Callable[[random.Random, tuple[Option, ...], Range], Any]] = {
    "varchar": _text,
    "varchar_auto": _text,
    "text": _long_text,
    "double": _number,
    "int": lambda draw, *_: draw.randint(0, 10_000),
    "phone": _phone,
    "date": _date,
    "daterange": _date_range,
    "time": _time,
    "timerange": _time_range,
    "enum": _choice,
    "set": _choices,
    "address": _address,
    "monetary": _monetary,
    "org": _organization,
    "people": _person,
    "user": _user,
}
