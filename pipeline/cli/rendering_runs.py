"""Text output of the commands about runs and fetches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel

from pipeline.cli.presentation import Presentation
from pipeline.cli.runs import print_run
from pipeline.cli.showing import duration, moment, say, table
from pipeline.operations import runs
from pipeline.operations.models import ConnectorRequest, Done, RowRequest
from pipeline.operations.registry import Operation
from pipeline.operations.runs import (
    BatchAnswer,
    BegunAnswer,
    FailedShape,
    PreviewAnswer,
    RunsAnswer,
    RunShape,
    StoryAnswer,
)


def _list(_request: BaseModel, answer: RunsAnswer) -> None:
    table(
        "",
        ("run", "entity", "kind", "state", "started (UTC)", "took", "read", "failed", "tokens"),
        [
            (r.id, r.entity, r.kind, r.state, r.started_at, duration(_took_s(r)), r.read, r.failed, r.tokens)
            for r in answer.runs
        ],
        empty="No run yet. Start one: pipeline fetch all CONNECTOR --wait",
    )


def _took_s(run: RunShape) -> float:
    return ((run.finished_at or datetime.now(UTC)) - run.started_at).total_seconds()


def _run(request: ConnectorRequest, answer: RunShape) -> None:
    print_run({**answer.model_dump(), "connector": request.connector, "took_s": _took_s(answer)})


def _begun(request: ConnectorRequest, answer: RunShape) -> None:
    say(f"Run {answer.id} fetches {answer.entity}s. See: pipeline runs show {request.connector} {answer.id}")


def _changes(request: ConnectorRequest, answer: BegunAnswer) -> None:
    for each in answer.runs:
        say(f"Run {each} fetches what changed. See: pipeline runs show {request.connector} {each}")
    if not answer.runs:
        say("A fetch of changes is already in flight.")


def _preview(_request: BaseModel, answer: PreviewAnswer) -> None:
    if answer.pages is None or answer.tokens is None:
        say("The cost is not known before the first full fetch: 10 tokens of the daily budget for each page")
        return
    about = duration(answer.took_s or 0.0)
    say(f"About {answer.pages:,} pages, {answer.tokens:,} tokens, {about} for {answer.known or 0:,} records")
    if answer.waits_for_tomorrow:
        ends = f"it will be done about {moment(answer.ends_at)} UTC" if answer.ends_at else "no day is large enough"
        say(f"Warning: today has {answer.left or 0:,} tokens left for fetches; the rest waits, {ends}")


def _story(request: ConnectorRequest, answer: StoryAnswer) -> None:
    run = answer.run
    print_run({**run.model_dump(), **run.counts, "connector": request.connector})
    for walk in answer.walks:
        say(
            f"  {walk.words}: {walk.state}, {walk.pages:,} pages"
            + (f", at id {walk.frontier}" if walk.frontier else "")
        )
    if answer.batch_states:
        say(f"  batches: {', '.join(f'{count:,} {state}' for state, count in answer.batch_states.items())}")
    _failures(answer.failures)


def _batch(_request: BaseModel, answer: BatchAnswer) -> None:
    batch = answer.batch
    lost = ", its worker died" if answer.is_abandoned else ""
    say(
        f"Batch {batch.id}, {batch.direction} {batch.entity}: {batch.state} at {batch.stage}, attempt {batch.attempts}{lost}"
    )
    say(
        f"  {batch.records:,} records, queue {batch.queue}, Celery task {batch.task_id or '-'}, run {answer.run_id or '-'}"
    )
    what = answer.cause or answer.walk or ""
    say(f"  created {moment(batch.created_at)}, due {moment(batch.due_at)} UTC; {what}".rstrip("; "))
    _failures(answer.failures)


def _failures(failures: Sequence[FailedShape]) -> None:
    for each in failures:
        say(f"  failure {each.id}: {each.entity} {each.record_id or ''} at {each.stage}, {each.reason}. {each.meaning}")


def _cancelled(request: RowRequest, _answer: Done) -> None:
    say(f"Run {request.id} was cancelled.")


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    runs.cancel_run: Presentation(show=_cancelled),
    runs.fetch_changes: Presentation(show=_changes),
    runs.list_runs: Presentation(show=_list),
    runs.preview_fetch: Presentation(show=_preview),
    runs.show_batch: Presentation(show=_batch),
    runs.show_run: Presentation(show=_run),
    runs.show_story: Presentation(show=_story),
    runs.start_fetch: Presentation(show=_begun),
}
