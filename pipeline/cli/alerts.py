"""`pipeline alerts`: what is wrong now, and whether whoever is to be told can be."""

from __future__ import annotations

from dataclasses import asdict

import click

from db import audit
from db.session import transaction
from pipeline.cli.audited import audited, operator_name
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, json_option, show, table
from pipeline.insight.alerts import open_alerts, past_alerts, told_where
from pipeline.sync.alerts import try_sinks


@click.group(name="alerts")
def group() -> None:
    """Alerts: what is wrong that somebody must be told of.

    \b
    Example:
      pipeline alerts list
      pipeline alerts test
    """


@group.command(name="list")
@click.option("--all", "past_too", is_flag=True, help="Resolved ones too.")
@click.option("--limit", default=50, show_default=True, help="How many resolved ones, newest first.")
@json_option
def list_alerts(past_too: bool, limit: int) -> None:
    """List open alerts, newest first, with what to do.

    \b
    Example:
      pipeline alerts list --all --json
    """
    open_database()
    with transaction() as session:
        found = open_alerts(session) + (past_alerts(session, limit=limit) if past_too else [])

    def human() -> None:
        columns = ("id", "state", "since (UTC)", "about", "what", "do", "told")
        lines = [
            (each.id, each.state, each.raised_at, each.about, each.sentence, each.advice, ", ".join(each.told))
            for each in found
        ]
        table("", columns, lines, empty="No alert is open.")

    show([asdict(each) for each in found], human)


@group.command(name="test")
@json_option
@audited("alerts.test")
def test_alerts() -> None:
    """Tell everybody who is told of alerts that this is a test. Exit code 1 when somebody cannot be told.

    \b
    Example:
      ALERT_WEBHOOK_URL_FILE=/run/secrets/hook pipeline alerts test
    """
    open_database()
    by = operator_name()
    with transaction() as session:
        audit.note(session, by, "alerts.test", ", ".join(told_where()))
    found = try_sinks(by)
    show(found, lambda: table("", ("sink", "answer"), list(found.items())))
    if any(answer != "ok" for answer in found.values()):
        raise Failed("somebody was not told", "correct the ALERT_ and SMTP_ names of the environment, then try again")


COMMANDS: tuple[click.Command, ...] = (group,)
