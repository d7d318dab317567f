"""Text output of the commands about runs, batches, jobs, comparisons and workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from pydantic import BaseModel

from pipeline.cli.output import duration, moment, say, table
from pipeline.cli.presentation import Presentation
from pipeline.domain.reasons import REASONS
from pipeline.operations import comparisons, jobs, runs, workers
from pipeline.operations.comparisons import ComparingAnswer, ComparisonRequested, RepairRequest
from pipeline.operations.jobs import JobsAnswer, JobsAsked, JobShape
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
from pipeline.operations.workers import WorkAnswer

COST_UNKNOWN: Final = "The cost is not known before the first full fetch: 10 tokens of the daily budget for each page"
BATCH_STATES: Final = ("running", "due", "waiting", "put_off", "abandoned", "held")


def print_run(facts: dict[str, Any]) -> None:
    """Print the counters of a run."""
    say(
        f"Run {facts['id']}: {facts['kind']} fetch of {facts['entity']}s, {facts['connector']}: {facts['state']}"
        f" after {duration(facts['took_s'])}"
    )
    if facts["reason"] and (reason := REASONS.get(facts["reason"])):
        say(f"  {facts['reason']}: {reason.meaning} {reason.advice}")
    say(
        f"  read {facts['read']:,}: {facts['new']:,} new, {facts['changed']:,} changed, {facts['same']:,} unchanged,"
        f" {facts['skipped']:,} skipped, {facts['failed']:,} failed,"
        f" {facts['rejected_fields']:,} fields of synchronized records were left out"
    )
    say(f"  created {facts['shells']:,} shells, {facts['links']:,} links; {facts['messages']:,} messages to Hull")
    rate = facts["read"] / facts["took_s"] if facts["took_s"] > 0 else 0
    say(
        f"  {facts['pages']:,} pages, {facts['requests']:,} requests, {facts['tokens']:,} tokens of Pipedrive's daily"
        f" budget, {rate:,.0f} records a second"
    )


def show_runs(_request: BaseModel, answer: RunsAnswer) -> None:
    table(
        "",
        ("run", "entity", "kind", "state", "started (UTC)", "took", "read", "failed", "tokens"),
        [
            (r.id, r.entity, r.kind, r.state, r.started_at, duration(_duration_s(r)), r.read, r.failed, r.tokens)
            for r in answer.runs
        ],
        empty="No run yet. Start one: pipeline fetch all CONNECTOR --wait",
    )


def _duration_s(run: RunShape) -> float:
    return ((run.finished_at or datetime.now(UTC)) - run.started_at).total_seconds()


def show_run(request: ConnectorRequest, answer: RunShape) -> None:
    print_run({**answer.model_dump(), "connector": request.connector, "took_s": _duration_s(answer)})


def show_begun(request: ConnectorRequest, answer: RunShape) -> None:
    say(f"Run {answer.id} fetches {answer.entity}s. See: pipeline runs show {request.connector} {answer.id}")


def show_changes(request: ConnectorRequest, answer: BegunAnswer) -> None:
    for each in answer.runs:
        say(f"Run {each} fetches what changed. See: pipeline runs show {request.connector} {each}")
    if not answer.runs:
        say("A fetch of changes is already in flight.")


def show_preview(_request: BaseModel, answer: PreviewAnswer) -> None:
    if answer.pages is None or answer.tokens is None:
        say(COST_UNKNOWN)
        return
    about = duration(answer.took_s or 0.0)
    say(f"About {answer.pages:,} pages, {answer.tokens:,} tokens, {about} for {answer.known or 0:,} records")
    if answer.waits_for_tomorrow:
        ends = f"it will be done about {moment(answer.ends_at)} UTC" if answer.ends_at else "no day is large enough"
        say(f"Warning: today has {answer.left or 0:,} tokens left for fetches; the rest waits, {ends}")


def show_run_details(request: ConnectorRequest, answer: StoryAnswer) -> None:
    run = answer.run
    print_run({**run.model_dump(), **run.counts, "connector": request.connector})
    for walk in answer.walks:
        say(
            f"  {walk.words}: {walk.state}, {walk.pages:,} pages"
            + (f", at id {walk.frontier}" if walk.frontier else "")
        )
    if answer.batch_states:
        say(f"  batches: {', '.join(f'{count:,} {state}' for state, count in answer.batch_states.items())}")
    _print_failures(answer.failures)


def show_batch(_request: BaseModel, answer: BatchAnswer) -> None:
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
    _print_failures(answer.failures)


def _print_failures(failures: Sequence[FailedShape]) -> None:
    for each in failures:
        say(f"  failure {each.id}: {each.entity} {each.record_id or ''} at {each.stage}, {each.reason}. {each.meaning}")


def show_cancelled(request: RowRequest, _answer: Done) -> None:
    say(f"Run {request.id} was cancelled.")


def show_jobs(_request: JobsAsked, answer: JobsAnswer) -> None:
    table(
        "",
        ("job", "kind", "for", "state", "progress", "since (UTC)", "reason"),
        [(j.id, j.kind, j.title, j.state, _progress_text(j), j.created_at, j.reason) for j in answer.jobs],
        empty="No such job.",
    )


def _progress_text(job: JobShape) -> str:
    if job.progress is None:
        return ""
    of = "" if job.progress.of is None else f" of {job.progress.of:,}"
    return f"{job.progress.done:,}{of} {job.progress.unit}"


def show_job(request: RowRequest, job: JobShape) -> None:
    say(f"Job {job.id}, {job.kind_name}: {job.title}")
    say(f"  {job.state} {_progress_text(job)}".rstrip())
    ended = f", ended {moment(job.ended_at)}" if job.ended_at else ""
    say(f"  since {moment(job.created_at)}{ended} UTC")
    if job.state == "waiting" and job.waits_for:
        say(f"  it waits for {job.waits_for} until {moment(job.due_at)} UTC")
    if job.reason:
        say(f"  {job.reason}: {job.meaning}")
        say(f"  Next: {job.advice}")
    for act in job.acts:
        say(f"  pipeline jobs {act} {request.connector} {job.id}")


def show_moved(request: RowRequest, answer: Done) -> None:
    say(f"Job {request.id} is {answer.done}.")


def show_comparison(request: ConnectorRequest, answer: ComparingAnswer) -> None:
    if answer.under_way:
        say(f"A comparison or its repair is in flight. See: pipeline jobs show {request.connector} {answer.job_id}")
    if last := answer.last:
        which = "all records" if last.sample is None else f"a sample of {last.sample:,} of each kind"
        say(f"Compared {moment(last.finished_at)} UTC by {last.asked_by}: {which}, {last.compared:,} in all")
        say(f"  {last.drift:,} differ; {duration(last.took_s)}, {last.tokens:,} tokens")
        for each in last.named:
            say(f"  {each['kind']}: {each['entity']} {each['pipedrive_id'] or each['hull_id']}")
    else:
        say("Nothing has been compared in the last 90 days.")
    if answer.repairable:
        command = f"pipeline comparisons repair {request.connector} {answer.job_id} --count {answer.repairable}"
        say(f"Next: {command}")
    all_of = "" if answer.tokens_of_all is None else f", of everything about {answer.tokens_of_all:,}"
    say(f"The next one of {answer.sample:,} records of each kind takes about {answer.tokens:,} tokens{all_of}.")


def show_started(request: ConnectorRequest, answer: ComparisonRequested) -> None:
    say(f"Job {answer.job_id} compares. See: pipeline jobs show {request.connector} {answer.job_id}")


def show_repairing(request: RepairRequest, _answer: Done) -> None:
    say(f"{request.count:,} records are synchronized again. See: pipeline jobs show {request.connector} {request.id}")


def show_work(_request: BaseModel, answer: WorkAnswer) -> None:
    say(f"{answer.sentence} {answer.next_step}".rstrip())
    for name, at in (("last sweep", answer.swept_at), ("beat's last tick", answer.ticked_at)):
        say(f"  {name:<17} {f'{moment(at)} UTC' if at else '-'}")
    say(f"  {'oldest due work':<17} {duration(answer.due_s) if answer.due_s > 0 else '-'}")
    table(
        "",
        ("queue", "messages", *(state.replace("_", " ") for state in BATCH_STATES), "workers"),
        [
            (each.name, each.messages, *(each.batches.get(state, 0) for state in BATCH_STATES), ", ".join(each.workers))
            for each in answer.queues
        ],
    )
    if answer.at_work:
        table(
            "In flight",
            ("batch", "connector", "what", "stage", "state", "records", "tries", "due (UTC)", "run"),
            [
                (
                    b.id,
                    b.connector,
                    f"{b.direction} {b.entity}",
                    b.stage,
                    b.state,
                    b.records,
                    b.attempts,
                    b.due_at,
                    b.run_id,
                )
                for b in answer.at_work
            ],
        )


def fail_on_error(answer: WorkAnswer) -> None:
    if answer.level == "error":
        raise click.exceptions.Exit(1)


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    runs.cancel_run: Presentation(show=show_cancelled),
    runs.fetch_changes: Presentation(show=show_changes),
    runs.list_runs: Presentation(show=show_runs),
    runs.preview_fetch: Presentation(show=show_preview),
    runs.show_batch: Presentation(show=show_batch),
    runs.show_run: Presentation(show=show_run),
    runs.show_story: Presentation(show=show_run_details),
    runs.start_fetch: Presentation(show=show_begun),
    jobs.abort_job: Presentation(show=show_moved),
    jobs.list_jobs: Presentation(show=show_jobs),
    jobs.pause_job: Presentation(show=show_moved),
    jobs.resume_job: Presentation(show=show_moved),
    jobs.show_job: Presentation(show=show_job),
    comparisons.compare: Presentation(show=show_started),
    comparisons.repair_comparison: Presentation(show=show_repairing),
    comparisons.show_comparison: Presentation(show=show_comparison),
    workers.show_work: Presentation(show=show_work, check=fail_on_error),
    workers.show_work_of: Presentation(show=show_work, check=fail_on_error),
}
