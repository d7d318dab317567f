"""`pipeline failures replay` and `pipeline failures replays`: set what failed going again, and follow it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from db import failure_filter
from db import job as jobs
from db import replay as rows
from db.failure_filter import FailureFilter
from db.session import transaction
from pipeline.cli.audited import audited, operator_name
from pipeline.cli.failure_filters import by_connector, filter_options, get_failure, read_filter
from pipeline.cli.failures import announce, described, group, in_words, require_choice, verdict_option
from pipeline.cli.opening import open_database
from pipeline.cli.showing import (
    Failed,
    columns_of,
    connector_argument,
    find_connector,
    json_option,
    say,
    show,
    table,
    wants_json,
)
from pipeline.insight import payloads, replays, verdicts
from pipeline.insight.replays import Progress
from pipeline.jobs.replays import start
from pipeline.jobs.replays.requeue import NotReplayable
from pipeline.jobs.replays.start import NothingToReplay
from pipeline.jobs.runtime import run_job
from pipeline.sync.job_queue import REPLAY
from pipeline.sync.stage import StageFailed

LOOK_S = 1.0
NAMED = 1_000
"""Items that are named one by one in what a program reads."""
COLUMNS = (
    "id", "state", "reason", "detail", "advice", "asked_by", "why", "chosen", "per_second", "total", "counts", "created_at",
    "ended_at",
)  # fmt: skip


@group.command(name="replay")
@filter_options
@click.option(
    "--edit",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Send this corrected payload (one failure).",
)
@click.option("--why", default="command line", help="Kept with the failure.")
@click.option("--dry-run", is_flag=True, help="Only say what would be replayed.")
@verdict_option
@click.option(
    "--throttle",
    type=click.FloatRange(start.SLOWEST, start.FASTEST),
    default=start.PER_SECOND,
    show_default=True,
    metavar="N",
    help="How many a second, at most.",
)
@click.option("--wait", is_flag=True, help="Follow it to its end, and say what became of each.")
@json_option
@audited("replay.start")
def replay_failures(
    edit: Path | None, why: str, dry_run: bool, with_verdict: bool, throttle: float, wait: bool, **given: Any
) -> None:
    """Replay failures: incoming from the stage that failed, outgoing decided again.

    Each record is read or decided again, so nothing older overwrites what is newer.

    \b
    Example:
      pipeline failures replay --connector acme --reason remote_unavailable --dry-run --verdict
      pipeline failures replay --connector acme --throttle 50 --wait
      pipeline failures replay --id 17
    """
    require_choice(given)
    open_database()
    with transaction() as session:
        chosen = read_filter(session, given)
        ids = failure_filter.open_ids(session, chosen)
    announce(chosen, ids, "replay", dry_run=dry_run)
    if edit and len(ids) != 1:
        raise click.UsageError("--edit corrects one failure: name it with --id")
    if dry_run:
        _say_what_would_be(chosen, len(ids), with_verdict=with_verdict)
        return
    begun = _begin(chosen, why, throttle, _corrected(edit, ids))
    if wait:
        _follow(begun)
    _report(begun, is_over=wait)


@group.group(name="replays")
def replays_group() -> None:
    """Replays: what was set going again, how far it is, and what became of it.

    \b
    Example:
      pipeline failures replays list acme
      pipeline failures replays pause 12
    """


@replays_group.command(name="list")
@connector_argument
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@json_option
def list_replays(connector: str, limit: int) -> None:
    """List a connector's replays, newest first.

    \b
    Example:
      pipeline failures replays list acme
    """
    open_database()
    with transaction() as session:
        key = find_connector(session, connector).key
        found = replays.progress_of(session, rows.latest_replays(session, key, limit=limit))
    show(
        [columns_of(each, *COLUMNS) for each in found],
        lambda: table(
            "",
            ("id", "begun (UTC)", "state", "what became of it", "by", "why"),
            [(each.id, each.created_at, each.state, each.summary, each.asked_by, each.why) for each in found],
            empty="Nothing has been replayed yet.",
        ),
    )


@replays_group.command(name="show")
@click.argument("replay_id", metavar="REPLAY", type=int)
@click.option("--state", type=click.Choice(list(replays.WORDS)), help="Only items in this state.")
@click.option("--limit", default=50, show_default=True, help="How many items.")
@json_option
def show_replay(replay_id: int, state: str | None, limit: int) -> None:
    """Show one replay with its items.

    \b
    Example:
      pipeline failures replays show 12 --state failed_again
    """
    open_database()
    progress = _progress(replay_id)
    with transaction() as session:
        items = replays.items_of(session, replay_id, state=state, limit=limit)
    columns = (
        "failure_id",
        "title",
        "reason",
        "state",
        "detail",
        "new_failure_id",
        "batch_id",
        "task_id",
        "settled_at",
    )

    def human() -> None:
        say(f"Replay {progress.id}, {progress.state}, by {progress.asked_by}: {progress.why}")
        say(f"  {progress.summary}")
        _say_why_stopped(progress)
        table("", columns, [[getattr(each, name) for name in columns] for each in items])

    show({**columns_of(progress, *COLUMNS), "items": [columns_of(each, *columns) for each in items]}, human)


def _act(name: str, said: str, example: str) -> click.Command:
    """One of the commands that move a replay."""

    @click.argument("replay_id", metavar="REPLAY", type=int)
    @json_option
    @audited("replay.act")
    def command(replay_id: int) -> None:
        open_database()
        _progress(replay_id)
        with transaction() as session:
            if not getattr(start, name)(session, replay_id, by=operator_name()):
                raise Failed(
                    f"replay {replay_id} is in no state for that", f"see: pipeline failures replays show {replay_id}"
                )
        progress = _progress(replay_id)
        show(columns_of(progress, *COLUMNS), lambda: say(f"Replay {replay_id} is {progress.state}. {progress.summary}"))

    command.__doc__ = f"{said}\n\n\b\nExample:\n  {example}\n"
    return click.command(name=name)(command)


for _command in (
    _act("pause", "Send nothing more of a replay for now.", "pipeline failures replays pause 12"),
    _act(
        "resume",
        "Let a replay go on that was paused, or that stopped by itself.",
        "pipeline failures replays resume 12",
    ),
    _act("abort", "Send nothing more of a replay; what was not sent stays open.", "pipeline failures replays abort 12"),
):
    replays_group.add_command(_command)


def _say_why_stopped(progress: Progress) -> None:
    """Why nobody carries it on, and what to do about that."""
    if progress.reason is not None:
        say(f"  {progress.reason}: {progress.meaning} {progress.detail or ''}".rstrip())
        say(f"  {progress.advice}")
        say(f"  pipeline failures replays resume {progress.id}")


def _say_what_would_be(chosen: FailureFilter, total: int, *, with_verdict: bool) -> None:
    with transaction() as session:
        found = failure_filter.page_of_failures(session, chosen, limit=NAMED)
        foreseen = verdicts.verdicts_of(session, found) if with_verdict else {}
        sums = verdicts.sum_of(session, chosen) if with_verdict else None
    document = [described(each, foreseen.get(each.id)) for each in reversed(found)]

    def human() -> None:
        say(f"Would replay {total:,}.")
        if sums is not None:
            of = f" (of the newest {sums.looked:,})" if sums.is_sample else ""
            say(f"  {in_words(sums.kinds)}{of}; about {sums.tokens:,} tokens")

    show(document, human)


def _corrected(edit: Path | None, ids: list[int]) -> dict[int, bytes]:
    """The corrected payload of the one failure that is meant. Raises: Failed."""
    if edit is None:
        return {}
    with transaction() as session:
        failure = get_failure(session, ids[0])
        try:
            return {ids[0]: payloads.read_edited(edit.read_text("utf-8", "replace"), failure)}
        except payloads.PayloadMistake as mistake:
            raise Failed(f"the payload will not do: {mistake}", f"see: pipeline failures show {ids[0]}") from None


def _begin(chosen: FailureFilter, why: str, throttle: float, sent: dict[int, bytes]) -> list[int]:
    """Begin a replay for each connector that has such failures, and do the first second's work here: whoever replays a handful
    sees at once what came of it, and need not have a worker."""
    begun = []
    with transaction() as session:
        for one in by_connector(session, chosen):
            try:
                with session.begin_nested():
                    replay = start.begin(session, one, by=operator_name(), why=why, per_second=throttle, payloads=sent)
                begun.append(replay.id)
            except NothingToReplay:
                continue
            except NotReplayable as refused:
                raise Failed(str(refused)) from None
    for replay_id in begun:
        _carry_on(replay_id)
    return begun


def _carry_on(replay_id: int) -> None:
    """Do a worker's part, unless one is at it."""
    with transaction() as session:
        job_id = jobs.find_due(session, REPLAY, str(replay_id))
    if job_id is not None:
        with suppress(StageFailed):
            run_job(job_id, None)


def _follow(begun: list[int]) -> None:
    """Wait for the end of all, with a line on stderr whenever there is news."""
    said, now = "", [_progress(each) for each in begun]
    while any(not each.is_over and each.state != "paused" for each in now):
        line = " ".join(f"Replay {each.id}, {each.summary}" for each in now)
        if line != said and not wants_json():
            click.echo(line, err=True)
        said = line
        time.sleep(LOOK_S)
        for replay_id in begun:
            _carry_on(replay_id)
        now = [_progress(each) for each in begun]


def _progress(replay_id: int) -> Progress:
    """Raises: Failed with exit code 2."""
    with transaction() as session:
        found = rows.find_replay(session, replay_id)
        if found is None:
            raise Failed(
                f"there is no replay {replay_id}", "see: pipeline failures replays list CONNECTOR", exit_code=2
            )
        return replays.progress_of(session, [found])[0]


def _report(begun: list[int], *, is_over: bool) -> None:
    """What was sent, what could not be, and what waits; after --wait what became of each."""
    now = [_progress(each) for each in begun]
    with transaction() as session:
        items = [item for each in begun for item in replays.items_of(session, each, limit=NAMED)]
    refused = {item.failure_id: item.detail for item in items if item.state == "refused"}
    begun_ids = [item.failure_id for item in items if item.state not in ("waiting", "refused", "aborted")]
    counts: dict[str, int] = {}
    for each in now:
        for state, count in each.counts.items():
            counts[state] = counts.get(state, 0) + count
    stopped = {each.id: each.reason for each in now if each.reason is not None}
    document = {"replays": begun, "stopped": stopped, "replayed": begun_ids, "refused": refused, "counts": counts}

    def human() -> None:
        for each in now:
            say(f"Replay {each.id}, {each.summary}")
            _say_why_stopped(each)
            if not each.is_over:
                say(f"  Follow it: pipeline failures replays show {each.id}")
        for reason in refused.values():
            say(f"  {reason}")
        if counts.get("failed_again"):
            say("What failed again is a new failure: pipeline failures list")

    show(document, human)
    if refused or any(each.reason for each in now) or (is_over and counts.get("failed_again")):
        click.get_current_context().exit(1)


COMMANDS: tuple[click.Command, ...] = (group,)
