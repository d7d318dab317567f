"""The settings as Hull's dashboard shows them: a title, a sentence, and how each is entered.

Their names are those of `pipeline.domain.settings`; a setting that is missing here fails a test.
"""

from __future__ import annotations

from typing import Any, Final

_CLAIMS: Final = {"type": "array", "format": "table"}
_USER_ATTRIBUTES: Final = {"type": "array", "format": "traitMapping"}
_ACCOUNT_ATTRIBUTES: Final = {"type": "array", "format": "accountTraitMapping"}
_SWITCH: Final = {"type": "boolean"}


def _mapping(fields: str, *, incoming: bool) -> dict[str, Any]:
    """The dashboard's format of a table of attributes: `fields` is the route that lists the available fields."""
    shown = {"direction": "incoming" if incoming else "outgoing", "loadOptions": fields, "allowCreate": incoming}
    return {"options": {**shown, "showOverwriteToggle": False, **({"source": "pipedrive"} if incoming else {})}}


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
        **_mapping("/fields-pipedrive-person-in", incoming=True),
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
        **_mapping("/fields-pipedrive-person-out", incoming=False),
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
        **_mapping("/fields-pipedrive-org-in", incoming=True),
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
        **_mapping("/fields-pipedrive-account-out", incoming=False),
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
    "change_stop_share": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "title": "Share of records that new settings may touch at once",
        "description": "When new settings would touch more of the known records, nothing begins before a person says yes.",
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
