"""Presentations of the commands about alerts, claims, credentials, operators and webhooks, and of all other commands.

A command without an entry here prints its answer with `show_plainly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from pipeline.cli import (
    rendering_connectors,
    rendering_failures,
    rendering_records,
    rendering_runs,
    rendering_settings,
)
from pipeline.cli.calling import Caller
from pipeline.cli.output import Failed, echo, table
from pipeline.cli.presentation import Presentation, Show, lines, print_rows, rows
from pipeline.operations import alerts, claims, credentials, operators, webhooks
from pipeline.operations.models import ConnectorRequest
from pipeline.operations.registry import Operation

ALERTS: Final = "id state raised_at about sentence advice sent_to"
CHANGED_OPERATOR: Final = lines("{request.id}: {answer.done}.")
REPLACED: Final = "The credentials of {request.connector} are replaced."


def has_unreached_sink(answer: alerts.TestAlertAnswer) -> bool:
    """Raise Failed if an alert sink did not accept the test alert."""
    if any(each != "ok" for each in answer.sinks.values()):
        next_step = "correct the ALERT_ and SMTP_ names of the environment, then try again"
        raise Failed("the test alert did not reach every sink", next_step)
    return False


def show_checks(_request: Any, answer: credentials.ChecksAnswer) -> None:
    for each in answer.checks:
        echo(f"{each.system}: {each.sentence} {each.advice}".rstrip())


def show_invitation(request: ConnectorRequest, answer: credentials.InvitationAnswer) -> None:
    echo(answer.link)
    echo()
    echo(f"Open it within ten minutes, signed in to Pipedrive as an administrator, to connect {request.connector}.")
    echo("It works only in the first browser that presses its button.")
    echo(f"The app's settings at Pipedrive must list the callback URL {answer.callback_url}")
    echo(f"and the scopes {', '.join(answer.scopes)}.")


def show_rotated(_request: Any, answer: credentials.RotatedAnswer) -> None:
    echo(f"{answer.renewed} secrets are encrypted with the newest key.")
    if others := answer.keys_no_longer_needed:
        echo(f"The other {others} of SECRET_KEYS can be removed once every process has restarted.")


def show_released(request: claims.ReleaseClaims, answer: claims.ReleasedAnswer) -> None:
    empty = f"{request.entity} {request.pipedrive_id} holds no claims."
    print_rows(answer.released, "claim waiting_record", title="Released", empty=empty, waiting_record=_waiting_record)


def _waiting_record(released: claims.ReleasedShape) -> Any:
    return released.wanted_by or "none"


def ask_password(caller: Caller, fields: dict[str, Any]) -> None:
    """Prompt for the password of a new operator, unless a file was given; an empty one means no password."""
    if "password" not in fields:
        prompt = "Password (empty: single sign-on only)"
        fields["password"] = click.prompt(
            prompt, default="", show_default=False, hide_input=True, confirmation_prompt=True, err=True
        )
    fields["password"] = fields["password"] or None
    read_connectors(caller, fields)


def read_connectors(_caller: Caller, fields: dict[str, Any]) -> None:
    """Read `--connectors all` as every connector, not as a connector with this name."""
    if fields.get("connectors") == ["all"]:
        fields["connectors"] = "all"


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation | Show]] = {
    alerts.list_open: rows("alerts", ALERTS, empty="No alert is open."),
    alerts.list_past: rows("alerts", ALERTS, empty="No alert was resolved yet."),
    alerts.send_test_alert: Presentation(
        show=lambda _request, answer: table("", ("sink", "answer"), answer.sinks.items()), failed=has_unreached_sink
    ),
    claims.release_claims: show_released,
    credentials.check_credentials: Presentation(
        show=show_checks, failed=lambda answer: any(each.trouble for each in answer.checks)
    ),
    credentials.invite: show_invitation,
    credentials.put_api_token: lines(REPLACED + " {answer.warning}"),
    credentials.put_hull_secret: lines(REPLACED),
    credentials.rotate_keys: show_rotated,
    operators.add_operator: Presentation(show=lines("{answer.name} can log in as {answer.role}."), ask=ask_password),
    operators.change_operator: Presentation(show=CHANGED_OPERATOR, ask=read_connectors),
    operators.first_link: lines("{answer.link}"),
    operators.list_all_keys: rows(
        "keys",
        "owner id name role created_at expires_at used_at",
        empty="No operator has a key. Owners create keys in the console, under their account.",
    ),
    operators.list_operators: rows(
        "operators",
        "id name role state second_factor created_at",
        empty="No operator yet. Add the first one: pipeline operators first",
        second_factor=lambda each: each.has_second_factor,
    ),
    operators.log_operator_out: CHANGED_OPERATOR,
    operators.revoke_any_key: lines("The key {request.id} is revoked."),
    operators.turn_off_second_factor: CHANGED_OPERATOR,
    operators.unlock_operator: CHANGED_OPERATOR,
    webhooks.check_webhooks: lines(
        "A worker checks the webhooks of {request.connector} now. See them: pipeline webhooks show {request.connector}"
    ),
    webhooks.ensure_webhooks: rows(
        "subscriptions",
        "entity state webhook_id last_status recreated last_healthy_at last_checked_at",
        empty="Pipedrive has no webhook of ours.",
        recreated=lambda each: each.recreated,
        last_healthy_at=lambda each: each.healthy_at,
        last_checked_at=lambda each: each.checked_at,
    ),
    **rendering_connectors.PRESENTATIONS,
    **rendering_failures.PRESENTATIONS,
    **rendering_records.PRESENTATIONS,
    **rendering_runs.PRESENTATIONS,
    **rendering_settings.PRESENTATIONS,
}
