"""`pipeline failures`: list, show, replay, discard what gave up."""

from __future__ import annotations

import getpass
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy.orm import Session

from db import connector as connectors
from db import failure as rows
from db.failure import Failure
from db.session import transaction
from pipeline.cli.fetch import Moment
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, columns_of, find_connector, json_option, moment, say, show, table
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.tasks.replay import NotReplayable, replay

F = TypeVar("F", bound=Callable[..., Any])
COLUMNS = (
    "id", "state", "kind", "direction", "entity", "record_id", "stage", "reason", "field", "detail", "attempts",
    "fingerprint", "run_id", "batch_id", "task_id", "closed_by", "closed_why", "created_at", "updated_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which failures are meant; what is None does not matter."""

    connector: str | None
    reason: str | None
    entity: str | None
    since: datetime | None
    ids: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.connector or self.reason or self.entity or self.since or self.ids)


def filter_options(command: F) -> F:
    """The flags that choose failures, the same for every command."""
    for option in (
        click.option("--id", "ids", type=int, multiple=True, help="This failure; may be given again."),
        click.option("--since", type=Moment(), metavar="TIME", help="Those that failed since: 2h, 3d, 2026-08-31."),
        click.option(
            "--entity", type=click.Choice([each.value for each in Entity]), help="Of Persons or Organizations."
        ),
        click.option("--reason", metavar="CODE", help="With this reason code."),
        click.option("--connector", metavar="CONNECTOR", help="Of this connector."),
    ):
        command = option(command)
    return command


@click.group(name="failures")
def group() -> None:
    """Failures: what gave up, kept whole until it is replayed or discarded.

    \b
    Example:
      pipeline failures list --connector acme
      pipeline failures replay --connector acme --reason no_update_time
    """


@group.command(name="list")
@filter_options
@click.option("--all", "closed_too", is_flag=True, help="Closed ones too.")
@click.option("--limit", default=50, show_default=True, help="How many, newest first.")
@json_option
def list_failures(closed_too: bool, limit: int, **given: Any) -> None:
    """List failures, newest first, and count them by reason.

    \b
    Example:
      pipeline failures list --connector acme --reason too_long
    """
    open_database()
    with transaction() as session:
        found = [described(each) for each in _find(session, Filter(**given), state=None if closed_too else "open")]
    counts = Counter((each["reason"], each["field"]) for each in found)
    shown = found[:limit]

    def human() -> None:
        if not found:
            say("No failure: everything was carried over.")
            return
        table(
            "",
            ("failures", "reason", "field", "what it means"),
            [(n, *key, _meaning(key[0])) for key, n in counts.most_common()],
        )
        say()
        columns = ("id", "since (UTC)", "what", "stage", "reason", "field", "state")
        table(
            "",
            columns,
            [(f["id"], f["updated_at"], _what(f), f["stage"], f["reason"], f["field"], f["state"]) for f in shown],
        )
        if len(found) > limit:
            say(f"… and {len(found) - limit} more; show them with --limit")

    show(shown, human)


@group.command(name="show")
@click.argument("failure_id", metavar="FAILURE", type=int)
@json_option
def show_failure(failure_id: int) -> None:
    """Show one failure whole: payload, HTTP exchange, traceback, and what to do.

    \b
    Example:
      pipeline failures show 17
    """
    open_database()
    with transaction() as session:
        row = _get(session, failure_id)
        payload = rows.payload_of(row)
        facts = {
            **described(row),
            "payload": payload.decode("utf-8", "replace") if payload is not None else None,
            "exchange": row.exchange,
            "traceback": row.traceback,
        }
    show(facts, lambda: _print_failure(facts))


@group.command(name="replay")
@filter_options
@click.option(
    "--edit",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Send this corrected payload (one failure).",
)
@click.option("--why", default="command line", help="Kept with the failure.")
@click.option("--dry-run", is_flag=True, help="Only say what would be replayed.")
@json_option
def replay_failures(edit: Path | None, why: str, dry_run: bool, **given: Any) -> None:
    """Replay failures, from the stage that failed. The record is read again, so nothing older overwrites what is newer.

    \b
    Example:
      pipeline failures replay --connector acme --reason remote_unavailable --dry-run
      pipeline failures replay --id 17
    """
    chosen = Filter(**given)
    ids = _chosen(chosen, dry_run=dry_run, verb="replay")
    if edit and len(ids) != 1:
        raise click.UsageError("--edit corrects one failure: name it with --id")
    if dry_run:
        return
    payload = edit.read_bytes() if edit else None
    refused: dict[int, str] = {}
    for failure_id in ids:
        try:
            with transaction() as session:
                replay(session, _get(session, failure_id), by=_who(), why=why, payload=payload)
        except NotReplayable as error:
            refused[failure_id] = str(error)
    _report("replayed", [each for each in ids if each not in refused], refused)


@group.command()
@filter_options
@click.option("--why", required=True, help="Kept with the failure.")
@click.option("--dry-run", is_flag=True, help="Only say what would be discarded.")
@json_option
def discard(why: str, dry_run: bool, **given: Any) -> None:
    """Close failures without replaying them.

    \b
    Example:
      pipeline failures discard --id 17 --why "deleted by sales"
    """
    ids = _chosen(Filter(**given), dry_run=dry_run, verb="discard")
    if dry_run:
        return
    closed, refused = [], {}
    for failure_id in ids:
        with transaction() as session:
            if rows.close_failure(session, failure_id, "discarded", by=_who(), why=why):
                closed.append(failure_id)
            else:
                refused[failure_id] = f"failure {failure_id} is closed already"
    _report("discarded", closed, refused)


COMMANDS: tuple[click.Command, ...] = (group,)


def described(failure: Failure) -> dict[str, Any]:
    reason = REASONS.get(failure.reason)
    return {
        **columns_of(failure, *COLUMNS),
        "meaning": _meaning(failure.reason),
        "advice": reason.advice if reason else "",
    }


def _find(session: Session, chosen: Filter, *, state: str | None = "open") -> list[Failure]:
    key = find_connector(session, chosen.connector).key if chosen.connector else None
    return rows.find_failures(
        session,
        connector_key=key,
        ids=chosen.ids,
        reason=chosen.reason,
        entity=chosen.entity,
        since=chosen.since,
        state=state,
        limit=None,
    )


def _get(session: Session, failure_id: int) -> Failure:
    failure = session.get(Failure, failure_id)
    if failure is None:
        raise Failed(f"there is no failure {failure_id}", "see: pipeline failures list", exit_code=2)
    return failure


def _chosen(chosen: Filter, *, dry_run: bool, verb: str) -> list[int]:
    """The ids of the open failures that are meant, oldest first; says how many before anything happens."""
    if chosen.is_empty:
        raise click.UsageError("say which: --id, --connector, --reason, --entity or --since")
    open_database()
    with transaction() as session:
        for failure_id in chosen.ids:
            _get(session, failure_id)
        found = [described(each) for each in reversed(_find(session, chosen))]
        names = {each.key: each.name for each in connectors.all_connectors(session)}
    if not found:
        raise Failed("no open failure fits", "see: pipeline failures list --all")
    counts = Counter(each["reason"] for each in found)
    reasons = ", ".join(f"{n} {reason}" for reason, n in counts.most_common())
    if dry_run:
        show(found, lambda: say(f"Would {verb} {len(found)} ({reasons}) of {len(names)} connectors' failures."))
    else:
        click.echo(f"{len(found)} to {verb}: {reasons}", err=True)
    return [each["id"] for each in found]


def _report(done: str, ids: list[int], refused: dict[int, str]) -> None:
    def human() -> None:
        say(f"{len(ids)} {done}, {len(refused)} not.")
        for reason in refused.values():
            say(f"  {reason}")
        if ids and done == "replayed":
            say("What fails again opens a new failure: pipeline failures list")

    show({done: ids, "refused": refused}, human)
    if refused:
        click.get_current_context().exit(1)


def _print_failure(facts: dict[str, Any]) -> None:
    say(f"Failure {facts['id']}, {facts['state']}: {_what(facts)}, {facts['direction']}, stage {facts['stage']}")
    say(f"  {facts['reason']}: {facts['meaning']} {facts['detail']}".rstrip())
    say(f"  Next: {facts['advice']}")
    say(f"  {facts['attempts']} attempts, first {moment(facts['created_at'])}, last {moment(facts['updated_at'])} UTC")
    say(f"  Celery task {facts['task_id'] or '-'}, run {facts['run_id'] or '-'}, batch {facts['batch_id'] or '-'}")
    if facts["closed_by"]:
        say(f"  closed by {facts['closed_by']}: {facts['closed_why']}")
    for name in ("exchange", "traceback", "payload"):
        if facts[name]:
            say(f"\n{name}:\n{facts[name]}")


def _what(facts: dict[str, Any]) -> str:
    return (
        f"{facts['entity']} {facts['record_id']}"
        if facts["kind"] == "record"
        else f"{facts['kind']} {facts['entity']}".strip()
    )


def _meaning(reason: str) -> str:
    return REASONS[reason].meaning if reason in REASONS else ""


def _who() -> str:
    return f"{getpass.getuser()} (command line)"
