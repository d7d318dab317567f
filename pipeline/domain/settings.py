"""The settings of one connector, as the customer writes them. Invalid settings are rejected as a whole, with every mistake.

Names that the replaced connector has are kept, so that a Hull organization keeps its settings. `setting_texts.py` describes
each setting. `pipeline/settings.py` is something else: the environment.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.domain.budget import DEFAULT_DAILY_TOKENS, DEFAULT_LIVE_RESERVE
from pipeline.domain.json_text import find_unusable
from pipeline.domain.kinds import Claim, Entity

DEFAULT_ORGANIZATION_DOMAIN = "website"
"""The Organization field for the web site, which not every company has: the default source of the domain claim."""

NIGHTLY = "nightly"

Name = Annotated[str, Field(min_length=1, max_length=255)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClaimRule(_Row):
    """Which Pipedrive field identifies a record in Hull: `service` is the field's code, `hull` the claim."""

    hull: Literal[Claim.EMAIL, Claim.EXTERNAL_ID, Claim.DOMAIN]
    service: Name


Owner = Literal["hull", "pipedrive", "latest"]
"""Who wins if a field that is mapped in both directions was changed on both sides."""


class AttributeMapping(_Row):
    """One attribute and one field, in one direction.

    on_null  whether an empty source clears the other side or leaves it unchanged
    form     by default labels and the primary value; `id` keeps option ids, `list` the whole list of e-mails
    parts    for addresses: also deliver these parts as `<attribute>_<part>`, for example `locality`, `country`
    owner    of an outgoing row: the owner of a field that is sent to Hull as well
    """

    hull: Name
    service: Name
    on_null: Literal["clear", "ignore"] = "clear"
    form: Literal["default", "id", "list"] = "default"
    parts: tuple[Name, ...] = ()
    owner: Owner = "hull"


class ConnectorSettings(BaseModel):
    """Everything a customer can set; unset names have the defaults below."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_claims: tuple[ClaimRule, ...] = (ClaimRule(hull=Claim.EMAIL, service="email"),)
    account_claims: tuple[ClaimRule, ...] = (ClaimRule(hull=Claim.DOMAIN, service=DEFAULT_ORGANIZATION_DOMAIN),)
    incoming_user_attributes: tuple[AttributeMapping, ...] = ()
    incoming_account_attributes: tuple[AttributeMapping, ...] = ()
    outgoing_user_attributes: tuple[AttributeMapping, ...] = ()
    outgoing_account_attributes: tuple[AttributeMapping, ...] = ()
    synchronized_user_segments: tuple[Name, ...] = ()
    synchronized_account_segments: tuple[Name, ...] = ()
    link_users_in_hull: bool = True
    link_users_in_service: bool = False
    support_user_deletion: bool = False
    support_account_deletion: bool = False
    ignore_deleted_users: bool = True
    ignore_deleted_accounts: bool = True
    user_sync_key: Annotated[str, Field(max_length=255)] = ""
    """Code of a custom text field of Persons for the Hull id of the User, set on Persons created here; empty for none."""
    account_sync_key: Annotated[str, Field(max_length=255)] = ""
    """Code of a custom text field of Organizations for the Hull id of the Account, set on Organizations created here."""
    deletion_stop_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the known records that may be missing from a full fetch without a check; a few always may."""
    change_stop_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the known records that new settings may change without approval; a hundred always may."""
    full_fetch_cron: str = NIGHTLY
    """When celery beat fetches everything: five cron fields in UTC, for example `15 2 * * *`; `nightly` is once a night at a
    minute that the connector's id decides; empty is never."""
    incremental_minutes: Annotated[int, Field(ge=0, le=24 * 60)] = 5
    """How often changes are fetched in addition to webhooks; 0 means never."""
    daily_tokens: Annotated[int, Field(ge=0, le=1_000_000_000)] = DEFAULT_DAILY_TOKENS
    """Tokens per day of the Pipedrive company, for all its users and apps together; 0 is without limit."""
    live_reserve: Annotated[float, Field(ge=0, le=0.9)] = DEFAULT_LIVE_RESERVE
    """The share of the daily tokens that fetches leave to webhooks and notifications."""

    @model_validator(mode="after")
    def _names_must_be_used_once(self) -> ConnectorSettings:
        for name in ("incoming_user_attributes", "incoming_account_attributes"):
            _refuse_repeats(name, "hull", [row.hull for row in getattr(self, name)])
        for name in ("outgoing_user_attributes", "outgoing_account_attributes"):
            _refuse_repeats(name, "service", [row.service for row in getattr(self, name)])
        if any(rule.hull is Claim.DOMAIN for rule in self.user_claims):
            raise ValueError("user_claims: a User is not identified by domain; use email or external_id")
        if any(rule.hull is Claim.EMAIL for rule in self.account_claims):
            raise ValueError("account_claims: an Account is not identified by email; use domain or external_id")
        return self

    def claims(self, entity: Entity) -> tuple[ClaimRule, ...]:
        return self.user_claims if entity is Entity.PERSON else self.account_claims

    def incoming(self, entity: Entity) -> tuple[AttributeMapping, ...]:
        return self.incoming_user_attributes if entity is Entity.PERSON else self.incoming_account_attributes

    def supports_deletion(self, entity: Entity) -> bool:
        return self.support_user_deletion if entity is Entity.PERSON else self.support_account_deletion

    def ignores_deleted(self, entity: Entity) -> bool:
        return self.ignore_deleted_users if entity is Entity.PERSON else self.ignore_deleted_accounts

    def sync_key(self, entity: Entity) -> str:
        return self.user_sync_key if entity is Entity.PERSON else self.account_sync_key

    def outgoing(self, entity: Entity) -> tuple[AttributeMapping, ...]:
        return self.outgoing_user_attributes if entity is Entity.PERSON else self.outgoing_account_attributes

    def synchronized_segments(self, entity: Entity) -> tuple[str, ...]:
        return self.synchronized_user_segments if entity is Entity.PERSON else self.synchronized_account_segments


def _refuse_repeats(setting: str, column: str, values: list[str]) -> None:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{setting}: {column} is used more than once: {', '.join(repeated)}")


class SettingsRefused(ValueError):
    """The settings are invalid.

    mistakes  each mistake with its place
    rest      the settings without the refused ones, for further checks; None if they are invalid too
    """

    def __init__(self, mistakes: list[str], rest: ConnectorSettings | None = None) -> None:
        self.mistakes, self.rest = mistakes, rest
        super().__init__("these settings were refused:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))


def read_settings(document: Any) -> ConnectorSettings:
    """Parse a settings document.

    Raises: SettingsRefused with every mistake.
    """
    try:
        chosen = ConnectorSettings.model_validate(document)
    except ValidationError as refused:
        mistakes, rest = [_describe(error) for error in refused.errors()], None
        names = {error["loc"][0] for error in refused.errors() if error["loc"]}
        if names and isinstance(document, dict):
            try:
                rest = read_settings({name: value for name, value in document.items() if name not in names})
            except SettingsRefused as more:
                mistakes += more.mistakes
        raise SettingsRefused(mistakes, rest) from None
    if (place := find_unusable(document)) is not None:
        raise SettingsRefused(
            [f"{place}: it contains a NUL or half a surrogate pair, which can be neither stored nor sent"]
        )
    return chosen


def _near(name: str) -> str:
    near = get_close_matches(name, ConnectorSettings.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _describe(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    row, key = ".".join(str(part) for part in error["loc"][:2]), error["loc"][-1] if error["loc"] else ""
    if error["type"] == "missing":
        return f"{row}: `{key}` is missing"
    if error["type"] == "extra_forbidden" and len(error["loc"]) > 1:
        return f"{row}: unknown key `{key}`"
    if error["type"] == "extra_forbidden":
        return f"{place}: there is no such setting{_near(place)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
