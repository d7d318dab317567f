"""The manifest for Hull's dashboard: settings, their meaning, and routes.

Only existing routes are listed. Names, tags and formats are those of the connector being replaced, so that an
installation moves by changing the manifest's address.
Source: packages/connectors/hull-pipedrive/manifest.json of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.domain.settings import ConnectorSettings
from pipeline.web.manifest_settings import SETTINGS

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

TAGS: Final = ("incoming", "outgoing", "batch", "batch-accounts", "kraken-exports", "first-install", "single-install")
"""`batch`, `batch-accounts`: the dashboard offers "Send to"; `kraken-exports`: such a selection comes as notifications."""

CHANNELS: Final = (
    "user:update",
    "account:update",
    "ship:update",
    "users_segment:update",
    "users_segment:delete",
    "accounts_segment:update",
    "accounts_segment:delete",
)
"""The events that Hull is requested to send. Segments are part of every message: their own events need no work."""


def _fetch(url: str, name: str, entity: str, records: str) -> dict[str, Any]:
    """A button that fetches everything of one entity."""
    text = (
        f"Fetches all {records} from Pipedrive and sends each of them to Hull again. Check identity and mapping before: "
        "it takes a while and a share of Pipedrive's daily budget. The logs show how far it is."
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
    ("Keys of our own", ("user_sync_key", "account_sync_key"), ()),
    ("Schedule", ("full_fetch_cron", "incremental_minutes", "deletion_stop_share", "change_stop_share"), ()),
    ("Daily budget", ("daily_tokens", "live_reserve"), ()),
)
"""(title, settings, actions), in the order of the page."""


def manifest() -> dict[str, Any]:
    """The document Hull reads when the connector is installed, and again when it is refreshed."""
    defaults = ConnectorSettings().model_dump(mode="json", exclude_none=True)
    return {
        "name": "Pipedrive",
        "description": "Keeps Persons and Users, Organizations and Accounts the same in Pipedrive and Hull.",
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
            *({"name": name, **described, "default": _plain(defaults[name])} for name, described in SETTINGS.items()),
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
    """Rows as Hull writes them: field and claim, without switches the dashboard cannot show."""
    if isinstance(default, list):
        return [{"hull": row["hull"], "service": row["service"]} if isinstance(row, dict) else row for row in default]
    return default
