"""Text output of generated commands; without an entry here, an answer is printed as a plain table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click
from pydantic import BaseModel

from pipeline.cli import failures as failing
from pipeline.cli import operators as people
from pipeline.cli import (
    rendering_comparisons,
    rendering_connectors,
    rendering_events,
    rendering_jobs,
    rendering_overview,
    rendering_plans,
    rendering_records,
    rendering_runs,
    rendering_settings,
    rendering_workers,
)
from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import Failed, say, table
from pipeline.operations import alerts, claims, credentials, failures, operators, replays, secrets, webhooks
from pipeline.operations.alerts import AlertsAnswer, TriedAnswer
from pipeline.operations.claims import ReleaseClaims, ReleasedAnswer
from pipeline.operations.credentials import ChecksAnswer, InvitationAnswer
from pipeline.operations.models import Done, NoRequest
from pipeline.operations.registry import Operation
from pipeline.operations.secrets import RotatedAnswer
from pipeline.operations.webhooks import SubscriptionsAnswer


def _alerts(_request: BaseModel, answer: AlertsAnswer) -> None:
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


def _tried(_request: BaseModel, answer: TriedAnswer) -> None:
    table("", ("sink", "answer"), list(answer.sinks.items()))


def _fail_unless_all_told(answer: TriedAnswer) -> None:
    if any(each != "ok" for each in answer.sinks.values()):
        raise Failed(
            "the test alert did not reach every sink",
            "correct the ALERT_ and SMTP_ names of the environment, then try again",
        )


def _subscriptions(request: BaseModel, answer: SubscriptionsAnswer) -> None:
    say(f"Pipedrive sends the changes of {_connector(request)} here.")
    columns = ("entity", "state", "webhook_id", "last_status", "healed", "sound_at", "checked_at")
    table("", columns, [[getattr(each, name) for name in columns] for each in answer.subscriptions])


def _asked(request: BaseModel, _answer: Done) -> None:
    say(
        f"A worker checks the webhooks of {_connector(request)} now. See them: pipeline webhooks show {_connector(request)}"
    )


def _invitation(request: BaseModel, answer: InvitationAnswer) -> None:
    say(answer.link)
    say()
    say(f"Open it within ten minutes, signed in to Pipedrive as an administrator, to connect {_connector(request)}.")
    say("It works only in the first browser in which its button is pressed.")
    say(f"The app's settings at Pipedrive must list the callback URL {answer.callback_url}")
    say(f"and the scopes {', '.join(answer.scopes)}.")


def _checks(_request: BaseModel, answer: ChecksAnswer) -> None:
    for each in answer.checks:
        say(f"{each.system}: {each.sentence} {each.advice}".rstrip())


def _fail_unless_accepted(answer: ChecksAnswer) -> None:
    if any(each.trouble for each in answer.checks):
        raise click.exceptions.Exit(1)


def _replaced(request: BaseModel, answer: Done) -> None:
    say(f"The credentials of {_connector(request)} are replaced. {getattr(answer, 'warning', '')}".rstrip())


def _released(request: ReleaseClaims, answer: ReleasedAnswer) -> None:
    table(
        "Released",
        ("claim", "waiting record"),
        [(each.claim, each.wanted_by or "nobody") for each in answer.released],
        empty=f"{request.entity} {request.pipedrive_id} holds no claims.",
    )


def _rotated(_request: BaseModel, answer: RotatedAnswer) -> None:
    others = answer.keys_no_longer_needed
    say(
        f"{answer.renewed} secrets are encrypted with the newest key."
        + (f" The other {others} of SECRET_KEYS can be removed once every process has restarted." if others else "")
    )


def _connector(request: BaseModel) -> str:
    return str(getattr(request, "connector", ""))


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    alerts.list_open: Presentation(show=_alerts),
    alerts.list_past: Presentation(show=_alerts),
    alerts.send_test_alert: Presentation(show=_tried, check=_fail_unless_all_told),
    claims.release_claims: Presentation(show=_released),
    credentials.check_credentials: Presentation(show=_checks, check=_fail_unless_accepted),
    credentials.invite: Presentation(show=_invitation),
    credentials.put_api_token: Presentation(show=_replaced),
    credentials.put_hull_secret: Presentation(show=_replaced),
    webhooks.check_webhooks: Presentation(show=_asked),
    webhooks.ensure_webhooks: Presentation(show=_subscriptions),
    failures.discard_failures: Presentation(
        show=failing.show_discarded, ask=failing.count_failures, asks=frozenset({"count"})
    ),
    failures.foresee_replay: Presentation(show=failing.show_sum),
    failures.list_failures: Presentation(show=failing.show_failures),
    failures.list_groups: Presentation(show=failing.show_groups),
    failures.show_failure: Presentation(show=failing.show_whole),
    failures.try_payload: Presentation(show=failing.show_edit),
    operators.add_operator: Presentation(show=people.show_added, ask=people.ask_password),
    operators.change_operator: Presentation(show=people.show_changed, ask=people.read_connectors),
    operators.list_all_keys: Presentation(show=people.show_keys),
    operators.list_operators: Presentation(show=people.show_operators),
    operators.log_operator_out: Presentation(show=people.show_changed),
    operators.revoke_any_key: Presentation(show=people.show_revoked),
    operators.turn_off_second_factor: Presentation(show=people.show_changed),
    operators.unlock_operator: Presentation(show=people.show_changed),
    replays.abort_replay: Presentation(show=failing.show_moved),
    replays.begin_replay: Presentation(
        show=failing.show_begun,
        check=failing.fail_unless_all_came_through,
        ask=failing.count_failures,
        asks=frozenset({"count", "why"}),
        follow=failing.follow,
    ),
    replays.list_replay_items: Presentation(show=failing.show_items),
    replays.list_replays: Presentation(show=failing.show_replays),
    replays.pause_replay: Presentation(show=failing.show_moved),
    replays.replay_edited: Presentation(
        show=failing.show_begun, check=failing.fail_unless_all_came_through, follow=failing.follow
    ),
    replays.resume_replay: Presentation(show=failing.show_moved),
    secrets.rotate_keys: Presentation(show=_rotated),
    replays.show_replay: Presentation(show=failing.show_progress),
    **rendering_comparisons.PRESENTATIONS,
    **rendering_connectors.PRESENTATIONS,
    **rendering_events.PRESENTATIONS,
    **rendering_jobs.PRESENTATIONS,
    **rendering_runs.PRESENTATIONS,
    **rendering_settings.PRESENTATIONS,
    **rendering_overview.PRESENTATIONS,
    **rendering_plans.PRESENTATIONS,
    **rendering_records.PRESENTATIONS,
    **rendering_workers.PRESENTATIONS,
}
