"""What Hull's dashboard is told of this connector: its settings, what they mean, and where it listens.

The names of settings are those of `pipeline.domain.settings`; a setting that is missing here fails a test. Only routes
that exist are named.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.domain.settings import ConnectorSettings

_CLAIMS: Final = {"type": "array", "format": "table"}
_USER_ATTRIBUTES: Final = {"type": "array", "format": "traitMapping"}
_ACCOUNT_ATTRIBUTES: Final = {"type": "array", "format": "accountTraitMapping"}
_INCOMING: Final = {"options": {"source": "pipedrive", "allowCreate": True}}
_SWITCH: Final = {"type": "boolean"}


def _claims(service: list[str], hull: list[str]) -> dict[str, Any]:
    """A table of two columns: which field feeds which claim."""
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
        "title": "How Persons are recognised as Users",
        "description": "Each row lets a Person's field identify a User. Every User also carries pipedrive:<id>.",
    },
    "incoming_user_attributes": {
        **_USER_ATTRIBUTES,
        **_INCOMING,
        "title": "Person fields to fetch",
        "description": "Which fields of a Person become which attributes of the User.",
    },
    "link_users_in_hull": {
        **_SWITCH,
        "title": "Link Users to Accounts in Hull",
        "description": "A User joins the Account of the Person's Organization, which is made if Hull does not have it.",
    },
    "support_user_deletion": {
        **_SWITCH,
        "title": "Mark Users whose Person is deleted",
        "description": "Sets pipedrive/deleted_at on the User. Nothing is deleted in Hull.",
    },
    "synchronized_user_segments": {
        "type": "array",
        "format": "segment",
        "title": "Segments of Users to send",
        "description": "Users in one of these segments are sent to Pipedrive; with none chosen, nobody is.",
    },
    "outgoing_user_attributes": {
        **_USER_ATTRIBUTES,
        "title": "Person fields to write",
        "description": "Which attributes of a User go to which fields of the Person.",
    },
    "link_users_in_service": {
        **_SWITCH,
        "title": "Link Persons to Organizations in Pipedrive",
        "description": "A sent Person is attached to the Organization of the User's Account.",
    },
    "ignore_deleted_users": {
        **_SWITCH,
        "title": "Leave out Users whose Person is deleted",
        "description": "A User that is marked as deleted in Pipedrive is not sent again.",
    },
    "account_claims": {
        **_CLAIMS,
        **_claims(["website"], ["external_id", "domain"]),
        "title": "How Organizations are recognised as Accounts",
        "description": "Each row lets an Organization's field identify an Account. A domain is cut to its registrable part.",
    },
    "incoming_account_attributes": {
        **_ACCOUNT_ATTRIBUTES,
        **_INCOMING,
        "title": "Organization fields to fetch",
        "description": "Which fields of an Organization become which attributes of the Account.",
    },
    "support_account_deletion": {
        **_SWITCH,
        "title": "Mark Accounts whose Organization is deleted",
        "description": "Sets pipedrive/deleted_at on the Account. Nothing is deleted in Hull.",
    },
    "synchronized_account_segments": {
        "type": "array",
        "format": "accountSegment",
        "title": "Segments of Accounts to send",
        "description": "Accounts in one of these segments are sent to Pipedrive; with none chosen, none is.",
    },
    "outgoing_account_attributes": {
        **_ACCOUNT_ATTRIBUTES,
        "title": "Organization fields to write",
        "description": "Which attributes of an Account go to which fields of the Organization.",
    },
    "ignore_deleted_accounts": {
        **_SWITCH,
        "title": "Leave out Accounts whose Organization is deleted",
        "description": "An Account that is marked as deleted in Pipedrive is not sent again.",
    },
    "user_sync_key": {
        "type": "string",
        "title": "Field that keeps a User's Hull id",
        "description": "Code of a custom text field of Persons, written when one is made, by which it is found again.",
    },
    "account_sync_key": {
        "type": "string",
        "title": "Field that keeps an Account's Hull id",
        "description": "The same for Organizations and Accounts.",
    },
    "full_fetch_cron": {
        "type": "string",
        "title": "When to fetch everything",
        "description": "Five cron fields in UTC, such as 15 2 * * * for 02:15; nightly for a minute of the night; empty for never.",
    },
    "deletion_stop_share": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "title": "Share of records that may be missing at once",
        "description": "When a full fetch misses more of the known records, nothing is marked before a person has looked.",
    },
    "incremental_minutes": {
        "type": "integer",
        "title": "Minutes between fetches of what changed",
        "description": "Makes up for webhooks that were lost; costs 20 tokens of Pipedrive's daily budget each time. 0 for never.",
    },
    "daily_tokens": {
        "type": "integer",
        "minimum": 0,
        "title": "Pipedrive's API tokens a day",
        "description": "What your plan and seats give the whole company, all its apps together; 0 for no limit of ours.",
    },
    "live_reserve": {
        "type": "number",
        "minimum": 0,
        "maximum": 0.9,
        "title": "Share of them kept for changes as they happen",
        "description": "Fetches stop before this share of the day is touched: 0.2 keeps a fifth.",
    },
}

CONNECT: Final = {
    "name": "oauth",
    "type": "string",
    "format": "oauth",
    "handler": "oauth",
    "url": "/auth",
    "title": "Connect to Pipedrive",
    "description": "Sign in to Pipedrive as an administrator and agree. Connecting again resets no settings.",
}
"""The button under Credentials; see `pipeline.web.authorisation`."""

SECTIONS: Final = (
    ("User identity", ("user_claims",)),
    ("Users from Pipedrive", ("incoming_user_attributes", "link_users_in_hull", "support_user_deletion")),
    (
        "Users to Pipedrive",
        (
            "synchronized_user_segments",
            "outgoing_user_attributes",
            "link_users_in_service",
            "ignore_deleted_users",
        ),
    ),
    ("Account identity", ("account_claims",)),
    ("Accounts from Pipedrive", ("incoming_account_attributes", "support_account_deletion")),
    (
        "Accounts to Pipedrive",
        ("synchronized_account_segments", "outgoing_account_attributes", "ignore_deleted_accounts"),
    ),
    ("Keys of our own", ("user_sync_key", "account_sync_key")),
    ("Schedule", ("full_fetch_cron", "incremental_minutes", "deletion_stop_share")),
    ("Daily budget", ("daily_tokens", "live_reserve")),
)


def manifest() -> dict[str, Any]:
    """The document Hull reads when the connector is installed, and again when it is refreshed."""
    defaults = ConnectorSettings().model_dump(mode="json", exclude_none=True)
    return {
        "name": "Pipedrive",
        "description": "Keeps Persons and Users, Organizations and Accounts the same in Pipedrive and Hull.",
        "tags": ["incoming", "outgoing", "kraken-exports", "single-install"],
        "source": "pipedrive",
        "admin": "/",
        "readme": "readme.md",
        "version": "0.1.0",
        "subscriptions": [{"url": "/smart-notifier"}],
        "statuses": [{"url": "/status", "type": "interval", "value": "5"}],
        "private_settings": [
            CONNECT,
            *({"name": name, **described, "default": _plain(defaults[name])} for name, described in SETTINGS.items()),
        ],
        "settings_sections": [
            {"title": "Credentials", "properties": [CONNECT["name"]]},
            *({"title": title, "properties": list(names)} for title, names in SECTIONS),
        ],
    }


def _plain(default: Any) -> Any:
    """Rows as Hull writes them: field and claim, without switches the dashboard cannot show."""
    if isinstance(default, list):
        return [{"hull": row["hull"], "service": row["service"]} if isinstance(row, dict) else row for row in default]
    return default
