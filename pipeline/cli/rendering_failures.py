"""Presentations of the commands about failures and replays; wait for a replay."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

import click

from pipeline.cli.calling import Caller, work_on
from pipeline.cli.output import Failed, echo, moment, wants_json
from pipeline.cli.presentation import Presentation, Show, lines, print_rows, rows
from pipeline.jobs.replays.preview_records import ReplayEffect
from pipeline.operations import failures, replays
from pipeline.operations.failures import (
    EditAnswer,
    FailureDetailsAnswer,
    FailuresAnswer,
    FailuresFilter,
    GroupsAnswer,
    ReplayPreviewRequest,
    preview_replay,
)
from pipeline.operations.models import ConnectorRequest, RowRequest
from pipeline.operations.registry import Operation
from pipeline.operations.replay_preview import ReplayPreviewShape, SumAnswer
from pipeline.operations.replays import ReplayShape, show_replay
from pipeline.sync.job_queue import REPLAY

LOOK_S: Final = 1.0
"""Pause between two polls of a replay."""


def show_failures(request: FailuresFilter, answer: FailuresAnswer) -> None:
    same: dict[str, Any] = {name: attrgetter(f"failure.{name}") for name in ("id", "stage", "reason", "field", "state")}
    print_rows(
        answer.failures,
        "id since_at what stage reason field state if_replayed_now",
        empty=_no_failure(request),
        since_at=lambda each: each.failure.created_at,
        what=lambda each: failures.title_of(each.failure),
        if_replayed_now=lambda each: _preview_text(each.preview),
        **same,
    )


def show_groups(request: FailuresFilter, answer: GroupsAnswer) -> None:
    if not answer.groups:
        echo(_no_failure(request))
    for each in answer.groups:
        about = f" on {each.field}" if each.field else ""
        what = f"{each.direction} {each.entity or each.stage} {each.reason}{about}"
        echo(f"{each.count:,} {what}  (--fingerprint {each.fingerprint})")
        echo(f"  {each.meaning} {each.advice}".rstrip())
        echo(f"  first {moment(each.first_at)}, last {moment(each.last_at)} UTC")


def show_sum(_request: ReplayPreviewRequest, answer: SumAnswer) -> None:
    echo(f"{answer.total:,} open. {_sum_text(answer)}".rstrip())


def show_whole(_request: RowRequest, answer: FailureDetailsAnswer) -> None:
    failure = answer.failure
    echo(f"Failure {failure.id}, {failure.state}: {answer.title}, {failure.direction}, stage {failure.stage}")
    echo(f"  {failure.reason}: {answer.meaning} {failure.detail}".rstrip())
    echo(f"  Next: {answer.advice}")
    attempts = "1 attempt" if failure.attempts == 1 else f"{failure.attempts:,} attempts"
    echo(f"  {attempts}, first {moment(failure.created_at)}, last {moment(failure.updated_at)} UTC")
    echo(f"  Celery task {answer.task_id or '-'}, run {failure.run_id or '-'}, batch {failure.batch_id or '-'}")
    if failure.closed_by:
        echo(f"  closed by {failure.closed_by}: {failure.closed_why}")
    else:
        echo(f"  If replayed now, {_preview_text(answer.preview)}")
        _print_changes(answer.preview)
    for attempt in answer.replays:
        echo(f"  replay {attempt.replay_id}: {attempt.state.replace('_', ' ')}. {attempt.detail or ''}".rstrip())
    if answer.earlier:
        echo(f"  other failures of this {failure.kind}: {', '.join(str(each.id) for each in answer.earlier)}")
    for name in ("exchange", "traceback", "payload"):
        if value := getattr(answer, name):
            echo(f"\n{name}:\n{value if isinstance(value, str) else _json(value)}")


def show_edit(_request: RowRequest, answer: EditAnswer) -> None:
    print_rows(
        answer.differences,
        "field received edited",
        empty="The payload is unchanged.",
        field=lambda each: each.path,
        received=lambda each: _json(each.before),
        edited=lambda each: _json(each.after),
    )
    echo(f"If replayed now, {_preview_text(answer.preview)}")
    _print_changes(answer.preview)


def count_failures(caller: Caller, fields: dict[str, Any]) -> None:
    """Set `count`, and print on stderr what will be done. Raises Failed if no failure matches."""
    fields.setdefault("why", "command line")
    if "count" in fields:
        return
    counted = caller.call(
        preview_replay, ReplayPreviewRequest.model_validate({"connector": fields["connector"], **fields["failures"]})
    )
    if not counted.total:
        raise Failed("no open failure matches", f"see: pipeline failures list {fields['connector']} --state all")
    click.echo(f"{counted.total:,} open. {_sum_text(counted)}", err=True)
    fields["count"] = counted.total


def follow(caller: Caller, request: ConnectorRequest, begun: ReplayShape, *, wait: bool) -> ReplayShape:
    """Return a replay after its first items were sent, or with `wait` once it has ended.

    With a local caller, this process does the work of a worker, so that a replay of a few failures needs no worker.
    """
    row = RowRequest(connector=request.connector, id=begun.id)
    printed = ""
    while True:
        work_on(caller, REPLAY, str(begun.id))
        now = caller.call(show_replay, row)
        if not wait or now.ended_at is not None or now.state == "paused":
            return now
        if now.summary != printed and not wants_json():
            click.echo(f"Replay {now.id}, {now.summary}", err=True)
        printed = now.summary
        time.sleep(LOOK_S)


def show_begun(request: ConnectorRequest, answer: ReplayShape) -> None:
    echo(f"Replay {answer.id}, {answer.summary}")
    _print_why_stopped(request, answer)
    if answer.ended_at is None:
        echo(f"  Follow it: pipeline failures replays show {request.connector} {answer.id}")
    for state in ("failed_again", "refused"):
        if answer.counts.get(state):
            echo(f"  See them: pipeline failures replays items {request.connector} {answer.id} --state {state}")


def has_failures(answer: ReplayShape) -> bool:
    """Return whether a replay stopped, or whether items of it failed again or were refused."""
    return bool(answer.reason or answer.counts.get("refused") or answer.counts.get("failed_again"))


def show_progress(request: RowRequest, answer: ReplayShape) -> None:
    echo(f"Replay {answer.id}, {answer.state}, by {answer.requested_by}: {answer.why}")
    echo(f"  {answer.summary}")
    _print_why_stopped(request, answer)
    echo(f"  See its items: pipeline failures replays items {request.connector} {answer.id}")


def _print_why_stopped(request: ConnectorRequest, replay: ReplayShape) -> None:
    if replay.reason is not None:
        echo(f"  {replay.reason}: {replay.meaning} {replay.detail or ''}".rstrip())
        echo(f"  {replay.advice}")
        echo(f"  pipeline failures replays resume {request.connector} {replay.id}")


def _print_changes(preview: ReplayPreviewShape) -> None:
    for each in preview.changes:
        echo(f"    {each.name}: {each.before!r} → {each.after!r}")


def _preview_text(preview: ReplayPreviewShape) -> str:
    return f"{preview.words}: {preview.detail} {preview.note}".rstrip()


def _sum_text(counted: SumAnswer) -> str:
    """`11 would change, 1 superseded; about 60 tokens`."""
    if not counted.total:
        return ""
    kinds = ", ".join(f"{count:,} {ReplayEffect(kind).words}" for kind, count in counted.kinds.items())
    newest = f" (of the newest {counted.examined:,})" if counted.is_sample else ""
    return f"If replayed now: {kinds}{newest}; about {counted.tokens:,} tokens"


def _no_failure(request: FailuresFilter) -> str:
    """Return the sentence for an empty list, with or without a filter."""
    if any(getattr(request, name) for name in FailuresFilter.model_fields):
        return "No failure matches; without a filter, all are listed."
    return "No failures: everything was synchronized."


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict | list) else None)


REPLAY_CHANGED: Final = lines("Replay {request.id} is {answer.done}.")
PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation | Show]] = {
    failures.discard_failures: Presentation(
        show=lines("{answer.count:,} discarded."), ask=count_failures, asks=frozenset({"count"})
    ),
    failures.preview_replay: show_sum,
    failures.list_failures: show_failures,
    failures.list_groups: show_groups,
    failures.show_failure: show_whole,
    failures.try_payload: show_edit,
    replays.abort_replay: REPLAY_CHANGED,
    replays.begin_replay: Presentation(
        show=show_begun, failed=has_failures, ask=count_failures, asks=frozenset({"count", "why"}), follow=follow
    ),
    replays.list_replay_items: rows(
        "items",
        "failure_id title reason state detail new_failure_id batch_id finished_at",
        empty="No such item.",
    ),
    replays.list_replays: rows(
        "replays",
        "id created_at state items by why",
        empty="Nothing has been replayed yet.",
        items=lambda each: each.summary,
        by=lambda each: each.requested_by,
    ),
    replays.pause_replay: REPLAY_CHANGED,
    replays.replay_edited: Presentation(show=show_begun, failed=has_failures, follow=follow),
    replays.resume_replay: REPLAY_CHANGED,
    replays.show_replay: show_progress,
}
