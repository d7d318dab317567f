"""Text output of generated commands; without an entry here, an answer is printed as a plain table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click
from pydantic import BaseModel

from pipeline.cli import operators as operator_commands
from pipeline.cli import (
    rendering_connectors,
    rendering_failures,
    rendering_records,
    rendering_runs,
    rendering_settings,
)
from pipeline.cli.output import Failed, say, table
from pipeline.cli.presentation import Presentation
from pipeline.operations import alerts, claims, credentials, webhooks
from pipeline.operations.alerts import AlertsAnswer, TriedAnswer
from pipeline.operations.claims import ReleaseClaims, ReleasedAnswer
from pipeline.operations.credentials import ChecksAnswer, InvitationAnswer, RotatedAnswer
from pipeline.operations.models import Done, NoRequest
from pipeline.operations.registry import Operation
from pipeline.operations.webhooks import SubscriptionsAnswer


def show_alerts(_request: BaseModel, answer: AlertsAnswer) -> None:
    columns = ("id", "state", "since (UTC)", "about", "what", "next step", "sent to")
    rows = [
        (
            each.id,
            each.state,
            each.raised_at,
            f"{each.connector or 'The whole pipeline'}: {each.title}",
            each.sentence,
            each.advice,
            ", ".join(each.told),
        )
        for each in answer.alerts
    ]
    table(
        "",
        columns,
        rows,
        empty="No alert is open." if isinstance(_request, NoRequest) else "No alert was resolved yet.",
    )


def show_tried_sinks(_request: BaseModel, answer: TriedAnswer) -> None:
    table("", ("sink", "answer"), list(answer.sinks.items()))


def fail_unless_all_sent(answer: TriedAnswer) -> None:
    if any(each != "ok" for each in answer.sinks.values()):
        raise Failed(
            "the test alert did not reach every sink",
            "correct the ALERT_ and SMTP_ names of the environment, then try again",
        )


def show_subscriptions(request: BaseModel, answer: SubscriptionsAnswer) -> None:
    say(f"Pipedrive sends the changes of {_connector(request)} here.")
    columns = ("entity", "state", "webhook_id", "last_status", "healed", "sound_at", "checked_at")
    table("", columns, [[getattr(each, name) for name in columns] for each in answer.subscriptions])


def show_check_requested(request: BaseModel, _answer: Done) -> None:
    say(
        f"A worker checks the webhooks of {_connector(request)} now. See them: pipeline webhooks show {_connector(request)}"
    )


def show_invitation(request: BaseModel, answer: InvitationAnswer) -> None:
    say(answer.link)
    say()
    say(f"Open it within ten minutes, signed in to Pipedrive as an administrator, to connect {_connector(request)}.")
    say("It works only in the first browser in which its button is pressed.")
    say(f"The app's settings at Pipedrive must list the callback URL {answer.callback_url}")
    say(f"and the scopes {', '.join(answer.scopes)}.")


def show_checks(_request: BaseModel, answer: ChecksAnswer) -> None:
    for each in answer.checks:
        say(f"{each.system}: {each.sentence} {each.advice}".rstrip())


def fail_unless_accepted(answer: ChecksAnswer) -> None:
    if any(each.trouble for each in answer.checks):
        raise click.exceptions.Exit(1)


def show_replaced(request: BaseModel, answer: Done) -> None:
    say(f"The credentials of {_connector(request)} are replaced. {getattr(answer, 'warning', '')}".rstrip())


def show_released(request: ReleaseClaims, answer: ReleasedAnswer) -> None:
    table(
        "Released",
        ("claim", "waiting record"),
        [(each.claim, each.wanted_by or "nobody") for each in answer.released],
        empty=f"{request.entity} {request.pipedrive_id} holds no claims.",
    )


def show_rotated(_request: BaseModel, answer: RotatedAnswer) -> None:
    others = answer.keys_no_longer_needed
    say(
        f"{answer.renewed} secrets are encrypted with the newest key."
        + (f" The other {others} of SECRET_KEYS can be removed once every process has restarted." if others else "")
    )


def _connector(request: BaseModel) -> str:
    return str(getattr(request, "connector", ""))


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    alerts.list_open: Presentation(show=show_alerts),
    alerts.list_past: Presentation(show=show_alerts),
    alerts.send_test_alert: Presentation(show=show_tried_sinks, check=fail_unless_all_sent),
    claims.release_claims: Presentation(show=show_released),
    credentials.check_credentials: Presentation(show=show_checks, check=fail_unless_accepted),
    credentials.invite: Presentation(show=show_invitation),
    credentials.put_api_token: Presentation(show=show_replaced),
    credentials.put_hull_secret: Presentation(show=show_replaced),
    webhooks.check_webhooks: Presentation(show=show_check_requested),
    webhooks.ensure_webhooks: Presentation(show=show_subscriptions),
    credentials.rotate_keys: Presentation(show=show_rotated),
    **operator_commands.PRESENTATIONS,
    **rendering_connectors.PRESENTATIONS,
    **rendering_failures.PRESENTATIONS,
    **rendering_records.PRESENTATIONS,
    **rendering_runs.PRESENTATIONS,
    **rendering_settings.PRESENTATIONS,
}
