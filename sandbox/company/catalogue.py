"""The fields a generated company starts with.

A custom field's code and option ids follow from the seed, so that a mapping made for one run fits the next.
"""

from __future__ import annotations

import hashlib

from sandbox.company.fields import FIRMOGRAPHICS, OPTIONAL_FIELDS, Entity, Field, Option

FIRST_CUSTOM_FIELD_ID = 9100
FIRST_OPTION_ID = 20

CUSTOM_NAMES: dict[Entity, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "person": (
        ("Customer number", "varchar", ()),
        ("Job title", "varchar", ()),
        ("Remarks", "text", ()),
        ("Lead score", "double", ()),
        ("Direct line", "phone", ()),
        ("Customer since", "date", ()),
        ("Contract period", "daterange", ()),
        ("Preferred call time", "time", ()),
        ("Office hours", "timerange", ()),
        ("Interests", "set", ("Product news", "Events", "Beta programme", "Case studies", "Größe & Preise")),
        ("Lead source", "enum", ("Inbound", "Outbound", "Referral", "Trade fair", "Ümlaut <b>Inc</b>")),
        ("Greeting", "varchar_auto", ()),
        ("Delivery address", "address", ()),
        ("Credit limit", "monetary", ()),
        ("Previous employer", "org", ()),
        ("Referred by", "people", ()),
        ("Account manager", "user", ()),
    ),
    "organization": (
        ("Domains", "text", ()),
        ("Country code", "varchar", ()),
        ("Customer number", "varchar", ()),
        ("Support notes", "text", ()),
        ("Health score", "double", ()),
        ("Switchboard", "phone", ()),
        ("Founded on", "date", ()),
        ("Fiscal year", "daterange", ()),
        ("Stand-up", "time", ()),
        ("Opening hours", "timerange", ()),
        ("Products in use", "set", ("Core", "Mobile", "Analytics", "API access", "On-premise")),
        ("Tier", "enum", ("Enterprise", "Mid-market", "Small business", "Non-profit")),
        ("Billing name", "varchar_auto", ()),
        ("Billing address", "address", ()),
        ("Contract value", "monetary", ()),
        ("Parent company", "org", ()),
        ("Main contact", "people", ()),
        ("Success manager", "user", ()),
    ),
}

_LABELS = (("Customer", "green"), ("Hot lead", "red"), ("Warm lead", "yellow"), ("Cold lead", "blue"))
_VISIBILITY = ((1, "Owner & followers"), (3, "Entire company"))
_INDUSTRIES = ("Software", "Manufacturing", "Retail", "Healthcare", "Education", "Finance")
_SHARED = (
    ("id", "ID", "int"),
    ("name", "Name", "varchar"),
    ("label_ids", "Labels", "set"),
    ("owner_id", "Owner", "user"),
    ("add_time", "Created", "date"),
    ("update_time", "Update time", "date"),
    ("visible_to", "Visible to", "visible_to"),
    ("picture_id", "Profile picture", "picture"),
)
_OWN: dict[Entity, tuple[tuple[str, str, str], ...]] = {
    "person": (
        ("first_name", "First name", "varchar"),
        ("last_name", "Last name", "varchar"),
        ("phone", "Phone", "phone"),
        ("email", "Email", "varchar"),
        ("org_id", "Organization", "org"),
    ),
    "organization": (("address", "Address", "address"),),
}


def code_of(seed: int, entity: Entity, name: str) -> str:
    """Derive a custom field's code, 40 lower-case hex digits, from the seed and its name."""
    return hashlib.sha1(f"{seed}:{entity}:{name}".encode(), usedforsecurity=False).hexdigest()


def make_fields(seed: int, entity: Entity, *, firmographics: bool) -> list[Field]:
    """List the fields of a company's Persons or Organizations, system fields first."""
    plain = [*_SHARED, *_OWN[entity]]
    if entity == "organization" and firmographics:
        plain += FIRMOGRAPHICS
    described = [(*field, False) for field in plain]
    described += [(n, n.replace("_", " ").capitalize(), kind, True) for n, kind in OPTIONAL_FIELDS[entity].items()]
    first_id = 1000 if entity == "person" else 4000
    system = [
        Field(id=first_id + n, code=code, name=name, type=kind, options=_system_options(code), optional=optional)
        for n, (code, name, kind, optional) in enumerate(described)
    ]
    return [*system, *_custom_fields(seed, entity)]


def _custom_fields(seed: int, entity: Entity) -> list[Field]:
    fields: list[Field] = []
    first_id = FIRST_CUSTOM_FIELD_ID + (0 if entity == "person" else 500)
    option_id = FIRST_OPTION_ID + seed % 40 + (0 if entity == "person" else 100)
    for n, (name, kind, labels) in enumerate(CUSTOM_NAMES[entity]):
        options = tuple(Option(id=option_id + 3 * m, label=label) for m, label in enumerate(labels))
        option_id += 3 * len(labels)
        code = code_of(seed, entity, name)
        fields.append(Field(id=first_id + n, code=code, name=name, type=kind, options=options, custom=True))
    return fields


def _system_options(code: str) -> tuple[Option, ...]:
    if code == "label_ids":
        return tuple(Option(id=n, label=label, color=color) for n, (label, color) in enumerate(_LABELS, 1))
    if code == "visible_to":
        return tuple(Option(id=n, label=label) for n, label in _VISIBILITY)
    if code == "industry":
        return tuple(Option(id=n, label=label) for n, label in enumerate(_INDUSTRIES, 1))
    return ()
