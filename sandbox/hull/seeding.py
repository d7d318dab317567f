"""Believable Users and Accounts that are in Hull before the connector comes: the same ones for the same seed.

Companies and people come from small lists, so that some of their domains and addresses also turn up in a Pipedrive
filled the same way.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from itertools import count
from typing import Any

from sandbox.hull.records.entity import Entity, Kind
from sandbox.hull.records.identity import Claims
from sandbox.hull.state import HullState

_FIRST = (
    "Ada Amir Anna Bruno Carla Chen Dana Diego Elif Emma Farid Greta Hana Ines Ivan Jonas Kofi Lena Luca Maya Mehdi"
    " Nadia Noah Olga Omar Paula Priya Rafael Sara Sven Tara Tomás Uma Viktor Wanda Yuki Zoë"
)
_LAST = (
    "Abadi Berg Cohen Dubois Eriksson Fischer García Haddad Ito Jansen Kowalski Lindqvist Martin Nguyen Okafor Patel"
    " Quinn Rossi Schmidt Tanaka Ueda Vargas Weber Yilmaz Zhang Ødegaard"
)
_COMPANY = "Acme Globex Initech Umbrella Hooli Stark Wayne Vandelay Wonka Cyberdyne Tyrell Soylent Gringotts Duff"
_BRANCH = "Logistics Software Foods Energy Health Travel Media Robotics Textiles Chemicals"
_PLANS = ("free", "team", "business")


def populate(state: HullState, *, seed: int, users: int, accounts: int) -> None:
    """Make the records; four Users in five belong to an Account where there are any."""
    draw = random.Random(seed)
    now = state.clock()
    domains = [_add_account(state, draw, number, now) for number in range(accounts)]
    for number in range(users):
        _add_user(state, draw, number, domains, now)


def company_name(number: int) -> str:
    """Acme Logistics, Globex Logistics, …; a number is added once all pairs are used."""
    names, branches = _COMPANY.split(), _BRANCH.split()
    round_, place = divmod(number, len(names) * len(branches))
    name = f"{names[place % len(names)]} {branches[place // len(names)]}"
    return name if round_ == 0 else f"{name} {round_ + 1}"


def _add_account(state: HullState, draw: random.Random, number: int, now: float) -> str:
    name = company_name(number)
    domain = f"{name.lower().replace(' ', '-')}.com"
    attributes = {"name": name, "industry": name.split()[1], "employees": draw.randrange(5, 5_000)}
    _add(state, "account", Claims(None, None, domain, None), attributes, now)
    return domain


def _add_user(state: HullState, draw: random.Random, number: int, domains: list[str], now: float) -> None:
    first, last = draw.choice(_FIRST.split()), draw.choice(_LAST.split())
    domain = draw.choice(domains) if domains and draw.random() < 0.8 else "gmail.com"
    email = next(address for address in _addresses(first, last, domain) if not any(state.users.holders(address)))
    attributes = {"first_name": first, "last_name": last, "plan": draw.choice(_PLANS), "sessions": draw.randrange(300)}
    user = _add(state, "user", Claims(None, f"app-{number + 1}", email, None), attributes, now)
    account = next(iter(state.accounts.holders(domain)), None)
    if account is not None:
        state.link(user, account, now)


def _addresses(first: str, last: str, domain: str) -> Iterator[str]:
    """ada.berg@…, ada.berg2@…, ada.berg3@…"""
    name = unicodedata.normalize("NFKD", f"{first}.{last}".lower().replace("ø", "o")).encode("ascii", "ignore").decode()
    yield f"{name}@{domain}"
    yield from (f"{name}{number}@{domain}" for number in count(2))


def _add(state: HullState, kind: Kind, claims: Claims, attributes: dict[str, Any], now: float) -> Entity:
    found = state.identify(kind, claims, create=True, now=now)
    if found is None:
        raise ValueError(f"nothing identifies {attributes}")
    state.write(found.entity, attributes, now=now, problems=[])
    return found.entity
