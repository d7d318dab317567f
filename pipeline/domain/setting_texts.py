"""The title and the description of each setting of a connector, for Hull's dashboard, the console and the guide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "user_claims": (
        "User identity",
        ("Each row uses a field of a Person to identify a User. Every User also has the anonymous id pipedrive:<id>."),
    ),
    "account_claims": (
        "Account identity",
        "Each row uses a field of an Organization to identify an Account. A website is shortened to its domain.",
    ),
    "incoming_user_attributes": (
        "Incoming user attributes",
        "Maps fields of a Person to attributes of a User.",
    ),
    "incoming_account_attributes": (
        "Incoming account attributes",
        "Maps fields of an Organization to attributes of an Account.",
    ),
    "outgoing_user_attributes": (
        "Outgoing user attributes",
        "Maps attributes of a User to fields of a Person.",
    ),
    "outgoing_account_attributes": (
        "Outgoing account attributes",
        "Maps attributes of an Account to fields of an Organization.",
    ),
    "synchronized_user_segments": (
        "Outgoing user segments",
        "Users in one of these segments are sent to Pipedrive. Without a segment, no User is sent.",
    ),
    "synchronized_account_segments": (
        "Outgoing account segments",
        "Accounts in one of these segments are sent to Pipedrive. Without a segment, no Account is sent.",
    ),
    "link_users_in_hull": (
        "Link Users to Accounts in Hull",
        "Links a User to the Account of the Person's Organization. Hull creates the Account if it does not exist.",
    ),
    "link_users_in_service": (
        "Link Persons to Organizations in Pipedrive",
        "Links a sent Person to the Organization of the User's Account. The Account is sent first.",
    ),
    "support_user_deletion": (
        "Mark Users with a deleted Person",
        "Sets pipedrive/deleted_at on the User. Nothing is deleted in Hull.",
    ),
    "support_account_deletion": (
        "Mark Accounts with a deleted Organization",
        "Sets pipedrive/deleted_at on the Account. Nothing is deleted in Hull.",
    ),
    "ignore_deleted_users": (
        "Skip Users with a deleted Person",
        "A User that is marked as deleted in Pipedrive is not sent again.",
    ),
    "ignore_deleted_accounts": (
        "Skip Accounts with a deleted Organization",
        "An Account that is marked as deleted in Pipedrive is not sent again.",
    ),
    "user_sync_key": (
        "Person field for the Hull id",
        (
            "Code of a custom text field of Persons. It stores the User's Hull id, to find the Person again even "
            "if an answer was lost."
        ),
    ),
    "account_sync_key": (
        "Organization field for the Hull id",
        (
            "Code of a custom text field of Organizations. It stores the Account's Hull id, to find the "
            "Organization again even if an answer was lost."
        ),
    ),
    "deletion_stop_share": (
        "Share of records that a full fetch may miss",
        (
            "If more than this share of the known records is missing from a full fetch, no record is marked as "
            "deleted until an operator confirms it."
        ),
    ),
    "change_stop_share": (
        "Share of records that new settings may change without approval",
        (
            "If new settings would change a larger share of the known records, the change needs approval. Up to "
            "a hundred records never need it."
        ),
    ),
    "full_fetch_cron": (
        "Schedule of full fetches",
        (
            "Use five cron fields in UTC, for example 15 2 * * * for 02:15. Use nightly for a minute at night, "
            "or leave it empty for never."
        ),
    ),
    "incremental_minutes": (
        "Minutes between fetches of changes",
        (
            "These fetches find changes that no webhook reported. Each costs 20 tokens of Pipedrive's daily budget. "
            "Use 0 for never."
        ),
    ),
    "daily_tokens": (
        "Pipedrive's API tokens per day",
        (
            "The tokens that your plan and seats give to all apps of the company together: at least 30,000 per "
            "seat. Use 0 for no limit."
        ),
    ),
    "live_reserve": (
        "Share of tokens reserved for live changes",
        "Fetches leave this share of the daily tokens unused; webhooks and notifications continue.",
    ),
}
"""Setting → (title, description). A missing one fails a test."""

TITLES: Final[Mapping[str, str]] = {name: title for name, (title, _) in TEXTS.items()}
DESCRIPTIONS: Final[Mapping[str, str]] = {name: description for name, (_, description) in TEXTS.items()}
