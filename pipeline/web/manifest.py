"""The manifest for Hull's dashboard: settings, their meaning, and routes.

Only existing routes are listed. Names, tags and formats are those of the connector being replaced, so that an
installation moves by changing the manifest's address.
Source: packages/connectors/hull-pipedrive/manifest.json of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.domain.setting_texts import DESCRIPTIONS, TITLES
from pipeline.domain.settings import ConnectorSettings

_CLAIMS: Final = {"type": "array", "format": "table"}
_USER_ATTRIBUTES: Final = {"type": "array", "format": "traitMapping"}
_ACCOUNT_ATTRIBUTES: Final = {"type": "array", "format": "accountTraitMapping"}
_SWITCH: Final = {"type": "boolean"}


def _mapping(fields: str, *, incoming: bool) -> dict[str, Any]:
    """Return the dashboard's format of a table of attributes; `fields` is the route that lists the available fields."""
    shown = {"direction": "incoming" if incoming else "outgoing", "loadOptions": fields, "allowCreate": incoming}
    return {"options": {**shown, "showOverwriteToggle": False, **({"source": "pipedrive"} if incoming else {})}}


def _claims(service: list[str], hull: list[str]) -> dict[str, Any]:
    """Return a table with the columns field and claim."""
    return {
        "items": {
            "type": "object",
            "properties": {
                "service": {"type": "string", "title": "Pipedrive field", "default": service[0]},
                "hull": {"type": "string", "title": "Hull claim", "enum": hull},
            },
        },
    }


SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "user_claims": {
        **_CLAIMS,
        **_claims(["email"], ["external_id", "email"]),
    },
    "incoming_user_attributes": {
        **_USER_ATTRIBUTES,
        **_mapping("/fields-pipedrive-person-in", incoming=True),
    },
    "link_users_in_hull": _SWITCH,
    "support_user_deletion": _SWITCH,
    "synchronized_user_segments": {
        "type": "array",
        "format": "segment",
    },
    "outgoing_user_attributes": {
        **_USER_ATTRIBUTES,
        **_mapping("/fields-pipedrive-person-out", incoming=False),
    },
    "link_users_in_service": _SWITCH,
    "ignore_deleted_users": _SWITCH,
    "account_claims": {
        **_CLAIMS,
        **_claims(["website"], ["external_id", "domain"]),
    },
    "incoming_account_attributes": {
        **_ACCOUNT_ATTRIBUTES,
        **_mapping("/fields-pipedrive-org-in", incoming=True),
    },
    "support_account_deletion": _SWITCH,
    "synchronized_account_segments": {
        "type": "array",
        "format": "accountSegment",
    },
    "outgoing_account_attributes": {
        **_ACCOUNT_ATTRIBUTES,
        **_mapping("/fields-pipedrive-account-out", incoming=False),
    },
    "ignore_deleted_accounts": _SWITCH,
    "user_sync_key": {"type": "string"},
    "account_sync_key": {"type": "string"},
    "full_fetch_cron": {"type": "string"},
    "deletion_stop_share": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
    },
    "change_stop_share": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
    },
    "incremental_minutes": {"type": "integer"},
    "daily_tokens": {
        "type": "integer",
        "minimum": 0,
    },
    "live_reserve": {
        "type": "number",
        "minimum": 0,
        "maximum": 0.9,
    },
}


CONNECT: Final = {
    "name": "oauth",
    "type": "string",
    "format": "oauth",
    "handler": "oauth",
    "url": "/auth",
    "title": "Connect to Pipedrive",
    "description": "Sign in to Pipedrive as an administrator and agree. Connecting again keeps all settings.",
}
"""The button under Credentials; see `pipeline.web.oauth_pages`."""

TAGS: Final = ("incoming", "outgoing", "batch", "batch-accounts", "kraken-exports", "first-install", "single-install")
"""`batch`, `batch-accounts`: the dashboard offers "Send to"; `kraken-exports`: a selection is sent as notifications."""

CHANNELS: Final = (
    "user:update",
    "account:update",
    "ship:update",
    "users_segment:update",
    "users_segment:delete",
    "accounts_segment:update",
    "accounts_segment:delete",
)
"""The events that we request from Hull. Every message contains its segments, so their events need no work."""


def _fetch(url: str, name: str, entity: str, records: str) -> dict[str, Any]:
    """Return a button that fetches all records of one entity."""
    text = (
        f"Fetches all {records} from Pipedrive and sends each of them to Hull again. Check identity and mappings first: "
        "it takes time and uses Pipedrive's daily budget. The logs show its progress."
    )
    return {
        "url": url,
        "name": name,
        "type": "string",
        "format": "action",
        "title": f"Fetch All {records}",
        "options": {
            "fireAndForget": True,
            "confirm": {"action": "fetch", "text": text, "button": f"Fetch all {records}", "entity": entity},
        },
    }


ACTIONS: Final = (
    _fetch("/personFetchAll", "fetch_all_persons", "users", "Persons"),
    _fetch("/orgFetchAll", "fetch_all_orgs", "accounts", "Organizations"),
)
FIELD_LISTS: Final = (
    "/fields-pipedrive-person-in",
    "/fields-pipedrive-person-out",
    "/fields-pipedrive-org-in",
    "/fields-pipedrive-account-out",
)

SECTIONS: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = (
    ("User identity", ("user_claims",), ()),
    (
        "Users from Pipedrive",
        ("incoming_user_attributes", "link_users_in_hull", "support_user_deletion"),
        ("fetch_all_persons",),
    ),
    (
        "Users to Pipedrive",
        (
            "synchronized_user_segments",
            "outgoing_user_attributes",
            "link_users_in_service",
            "ignore_deleted_users",
        ),
        (),
    ),
    ("Account identity", ("account_claims",), ()),
    ("Accounts from Pipedrive", ("incoming_account_attributes", "support_account_deletion"), ("fetch_all_orgs",)),
    (
        "Accounts to Pipedrive",
        ("synchronized_account_segments", "outgoing_account_attributes", "ignore_deleted_accounts"),
        (),
    ),
    ("Hull id fields", ("user_sync_key", "account_sync_key"), ()),
    ("Schedule", ("full_fetch_cron", "incremental_minutes", "deletion_stop_share", "change_stop_share"), ()),
    ("Daily budget", ("daily_tokens", "live_reserve"), ()),
)
"""(title, settings, actions), in the order of the page."""


def manifest() -> dict[str, Any]:
    """Return the document that Hull reads when the connector is installed or refreshed."""
    defaults = ConnectorSettings().model_dump(mode="json", exclude_none=True)
    return {
        "name": "Pipedrive",
        "description": "Synchronizes Persons and Organizations in Pipedrive with Users and Accounts in Hull.",
        "tags": list(TAGS),
        "source": "pipedrive",
        "logo": "logo.png",
        "picture": "logo.png",
        "admin": "/",
        "readme": "readme.md",
        "version": "0.1.0",
        "subscriptions": [
            {
                "url": "/smart-notifier",
                "channels": [{"channel": channel} for channel in CHANNELS],
                "conditions": {"channels": {"only": list(CHANNELS)}},
            }
        ],
        "statuses": [{"url": "/status", "type": "interval", "value": "5"}],
        "json": [*ACTIONS, *({"url": url} for url in FIELD_LISTS)],
        "private_settings": [
            CONNECT,
            *(
                {
                    "name": name,
                    **form,
                    "title": TITLES[name],
                    "description": DESCRIPTIONS[name],
                    "default": _plain(defaults[name]),
                }
                for name, form in SETTINGS.items()
            ),
        ],
        "settings_sections": [
            {"title": "Credentials", "step": "credentials", "properties": [f"private_settings.{CONNECT['name']}"]},
            *(
                {"title": title, "properties": [*_named("private_settings", names), *_named("json", actions)]}
                for title, names, actions in SECTIONS
            ),
        ],
    }


def _named(part: str, names: tuple[str, ...]) -> list[str]:
    return [f"{part}.{name}" for name in names]


def _plain(default: Any) -> Any:
    """Return default rows in Hull's format: field and claim, without options that the dashboard cannot show."""
    if isinstance(default, list):
        return [{"hull": row["hull"], "service": row["service"]} if isinstance(row, dict) else row for row in default]
    return default
