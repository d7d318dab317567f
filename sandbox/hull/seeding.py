"""Believable Users and Accounts that are in Hull before the connector comes: the same ones for the same seed.

Every second Account has the domain of an Organization that the sandbox's Pipedrive generates; the others, and all
Users, are Hull's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

from sandbox.company import names
from sandbox.hull.records.entity import Entity, Kind
from sandbox.hull.records.identity import Claims
from sandbox.hull.state import HullState

_PLANS = ("free", "team", "business")
_OWN_DOMAINS = 1_000_000  # numbers from here on are no Organization's


def populate(state: HullState, *, seed: int, users: int, accounts: int) -> None:
    """Make the records; four Users in five belong to an Account where there are any."""
    draw, now = random.Random(seed), state.clock()
    domains = [_add_account(state, draw, number, now) for number in range(1, accounts + 1)]
    for number in range(1, users + 1):
        _add_user(state, draw, number, domains, now)


def _add_account(state: HullState, draw: random.Random, number: int, now: float) -> str:
    domain = names.domain(number if number % 2 else _OWN_DOMAINS + number)
    sector = draw.choice(names.SECTORS)
    name = f"{domain.partition('-')[0].capitalize()} {sector}"
    attributes = {"name": name, "industry": sector, "employees": draw.randrange(5, 5_000)}
    _add(state, "account", Claims(None, None, domain, None), attributes, now)
    return domain


def _add_user(state: HullState, draw: random.Random, number: int, domains: list[str], now: float) -> None:
    first, last = draw.choice(names.FIRST_NAMES), draw.choice(names.LAST_NAMES)
    domain = draw.choice(domains) if domains and draw.random() < 0.8 else draw.choice(names.MAIL_PROVIDERS)
    email = next(address for address in _addresses(first, last, domain) if not any(state.users.holders(address)))
    attributes = {"first_name": first, "last_name": last, "plan": draw.choice(_PLANS), "sessions": draw.randrange(300)}
    user = _add(state, "user", Claims(None, f"app-{number}", email, None), attributes, now)
    account = next(iter(state.accounts.holders(domain)), None)
    if account is not None:
        state.link(user, account, now)


def _addresses(first: str, last: str, domain: str) -> Iterator[str]:
    """ada.berg@…, ada.berg2@…, ada.berg3@…"""
    name = f"{names.slug(first)}.{names.slug(last)}"
    yield f"{name}@{domain}"
    yield from (f"{name}{number}@{domain}" for number in count(2))


def _add(state: HullState, kind: Kind, claims: Claims, attributes: dict[str, Any], now: float) -> Entity:
    found = state.identify(kind, claims, create=True, now=now)
    if found is None:
        raise ValueError(f"nothing identifies {attributes}")
    state.write(found.entity, attributes, now=now, problems=[])
    return found.entity
