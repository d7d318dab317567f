"""Presentations of the commands about runs, batches, jobs, comparisons and workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.cli.output import duration, echo, moment
from pipeline.cli.presentation import Presentation, Show, lines, print_rows, rows
from pipeline.domain.reasons import REASONS
from pipeline.operations import comparisons, jobs, runs, workers
from pipeline.operations.comparisons import ComparingAnswer
from pipeline.operations.jobs import JobShape
from pipeline.operations.models import ConnectorRequest
from pipeline.operations.registry import Operation
from pipeline.operations.runs import (
    BatchAnswer,
    PreviewAnswer,
    RunDetailsAnswer,
    RunFailureShape,
    RunShape,
    StartedRunsAnswer,
)
from pipeline.operations.workers import QueueShape, WorkAnswer

BATCH_STATES: Final = ("running", "due", "waiting", "put_off", "abandoned", "held")


def print_run(facts: dict[str, Any]) -> None:
    """Print the counters of a run."""
    echo(
        f"Run {facts['id']}: {facts['kind']} fetch of {facts['entity']}s, {facts['connector']}: {facts['state']}"
        f" after {duration(facts['took_s'])}"
    )
    if facts["reason"] and (reason := REASONS.get(facts["reason"])):
        echo(f"  {facts['reason']}: {reason.meaning} {reason.advice}")
    echo(
        f"  read {facts['read']:,}: {facts['new']:,} new, {facts['changed']:,} changed, {facts['same']:,} unchanged,"
        f" {facts['skipped']:,} skipped, {facts['failed']:,} failed,"
        f" {facts['rejected_fields']:,} fields of synchronized records were left out"
    )
    echo(f"  created {facts['shells']:,} shells, {facts['links']:,} links; {facts['messages']:,} messages to Hull")
    rate = facts["read"] / facts["took_s"] if facts["took_s"] > 0 else 0
    echo(
        f"  {facts['pages']:,} pages, {facts['requests']:,} requests, {facts['tokens']:,} tokens of Pipedrive's daily"
        f" budget, {rate:,.0f} records a second"
    )


def _duration_s(run: RunShape) -> float:
    return ((run.finished_at or datetime.now(UTC)) - run.started_at).total_seconds()


def show_run(request: ConnectorRequest, answer: RunShape) -> None:
    print_run({**answer.model_dump(), "connector": request.connector, "took_s": _duration_s(answer)})


def show_started(request: ConnectorRequest, answer: StartedRunsAnswer) -> None:
    for each in answer.runs:
        echo(f"Run {each} is started. See: pipeline runs show {request.connector} {each}")
    if not answer.runs:
        echo("Such a fetch is already in flight.")


def show_preview(_request: Any, answer: PreviewAnswer) -> None:
    if answer.pages is None or answer.tokens is None:
        echo("The cost is not known before the first full fetch: 10 tokens of the daily budget for each page")
        return
    about = duration(answer.took_s or 0.0)
    echo(f"About {answer.pages:,} pages, {answer.tokens:,} tokens, {about} for {answer.known or 0:,} records")
    if answer.waits_for_tomorrow:
        ends = f"it will be done about {moment(answer.ends_at)} UTC" if answer.ends_at else "no day is large enough"
        echo(f"Warning: today has {answer.left or 0:,} tokens left for fetches; the rest waits, {ends}")


def show_run_details(request: ConnectorRequest, answer: RunDetailsAnswer) -> None:
    run = answer.run
    print_run({**run.model_dump(), **run.counts, "connector": request.connector})
    for walk in answer.walks:
        at = f", at id {walk.frontier}" if walk.frontier else ""
        echo(f"  {walk.words}: {walk.state}, {walk.pages:,} {'page' if walk.pages == 1 else 'pages'}{at}")
    if answer.batch_states:
        echo(f"  batches: {', '.join(f'{count:,} {state}' for state, count in answer.batch_states.items())}")
    _print_failures(answer.failures)


def show_batch(_request: Any, answer: BatchAnswer) -> None:
    batch = answer.batch
    lost = ", its worker died" if answer.is_abandoned else ""
    echo(
        f"Batch {batch.id}, {batch.direction} {batch.entity}: {batch.state} at {batch.stage}, attempt {batch.attempts}{lost}"
    )
    echo(
        f"  {batch.records:,} records, queue {batch.queue}, Celery task {batch.task_id or '-'}, run {answer.run_id or '-'}"
    )
    what = answer.cause or answer.walk or ""
    echo(f"  created {moment(batch.created_at)}, due {moment(batch.due_at)} UTC; {what}".rstrip("; "))
    _print_failures(answer.failures)


def _print_failures(failures: Sequence[RunFailureShape]) -> None:
    for each in failures:
        echo(
            f"  failure {each.id}: {each.entity} {each.record_id or ''} at {each.stage}, {each.reason}. {each.meaning}"
        )


def _progress_text(job: JobShape) -> str:
    if job.progress is None:
        return ""
    of = "" if job.progress.of is None else f" of {job.progress.of:,}"
    return f"{job.progress.done:,}{of} {job.progress.unit}"


def show_job(request: ConnectorRequest, job: JobShape) -> None:
    echo(f"Job {job.id}, {job.kind_name}: {job.title}")
    echo(f"  {job.state} {_progress_text(job)}".rstrip())
    ended = f", ended {moment(job.ended_at)}" if job.ended_at else ""
    echo(f"  since {moment(job.created_at)}{ended} UTC")
    if job.state == "waiting" and job.waits_for:
        echo(f"  it waits for {job.waits_for} until {moment(job.due_at)} UTC")
    if job.reason:
        echo(f"  {job.reason}: {job.meaning}")
        echo(f"  Next: {job.advice}")
    for act in job.acts:
        echo(f"  pipeline jobs {act} {request.connector} {job.id}")


def show_comparison(request: ConnectorRequest, answer: ComparingAnswer) -> None:
    if answer.under_way:
        echo(f"A comparison or its repair is in flight. See: pipeline jobs show {request.connector} {answer.job_id}")
    if last := answer.last:
        which = "all records" if last.sample is None else f"a sample of {last.sample:,} of each kind"
        echo(f"Compared {moment(last.finished_at)} UTC by {last.requested_by}: {which}, {last.compared:,} in all")
        echo(f"  {last.drift:,} differ; {duration(last.took_s)}, {last.tokens:,} tokens")
        for each in last.named:
            echo(f"  {each['kind']}: {each['entity']} {each['pipedrive_id'] or each['hull_id']}")
    else:
        echo("Nothing has been compared in the last 90 days.")
    if answer.repairable:
        command = f"pipeline comparisons repair {request.connector} {answer.job_id} --count {answer.repairable}"
        echo(f"Next: {command}")
    everything = answer.tokens_of_all
    if everything is not None and everything <= answer.tokens:
        echo(f"The next comparison of all records takes about {everything:,} tokens: not more than a sample.")
        return
    all_of = "" if everything is None else f", of everything about {everything:,}"
    echo(f"The next comparison of {answer.sample:,} records of each kind takes about {answer.tokens:,} tokens{all_of}.")


def show_work(_request: Any, answer: WorkAnswer) -> None:
    echo(f"{answer.sentence} {answer.next_step}".rstrip())
    for name, at in (("last sweep", answer.swept_at), ("beat's last tick", answer.ticked_at)):
        echo(f"  {name:<17} {f'{moment(at)} UTC' if at else '-'}")
    echo(f"  {'oldest due work':<17} {duration(answer.due_s) if answer.due_s > 0 else '-'}")
    counts: dict[str, Any] = {state: _batches_in(state) for state in BATCH_STATES}
    columns = f"queue messages {' '.join(BATCH_STATES)} workers"
    print_rows(answer.queues, columns, queue=lambda each: each.name, **counts)
    if answer.at_work:
        columns = "id connector what stage state records attempts due_at run_id"
        print_rows(answer.at_work, columns, title="In flight", what=lambda each: f"{each.direction} {each.entity}")


def _batches_in(state: str) -> Callable[[QueueShape], int]:
    return lambda queue: queue.batches.get(state, 0)


JOB_CHANGED: Final = lines("Job {request.id} is {answer.done}.")
WORK: Final = Presentation(show=show_work, failed=lambda answer: answer.level == "error")
PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation | Show]] = {
    runs.cancel_run: lines("Run {request.id} was cancelled."),
    runs.fetch_changes: show_started,
    runs.list_runs: rows(
        "runs",
        "id entity kind state started_at took read failed tokens",
        empty="No run yet. Start one: pipeline fetch all CONNECTOR --wait",
        took=lambda run: duration(_duration_s(run)),
    ),
    runs.preview_fetch: show_preview,
    runs.show_batch: show_batch,
    runs.show_run: show_run,
    runs.show_run_details: show_run_details,
    runs.start_fetch: lines(
        "Run {answer.id} fetches {answer.entity}s. See: pipeline runs show {request.connector} {answer.id}"
    ),
    runs.start_first_fetches: show_started,
    jobs.abort_job: JOB_CHANGED,
    jobs.list_jobs: rows(
        "jobs", "id kind title state progress created_at reason", empty="No such job.", progress=_progress_text
    ),
    jobs.pause_job: JOB_CHANGED,
    jobs.resume_job: JOB_CHANGED,
    jobs.show_job: show_job,
    comparisons.compare: lines(
        "Job {answer.job_id} compares. See: pipeline jobs show {request.connector} {answer.job_id}"
    ),
    comparisons.repair_comparison: lines(
        "{request.count:,} records are synchronized again. See: pipeline jobs show {request.connector} {request.id}"
    ),
    comparisons.show_comparison: show_comparison,
    workers.show_work: WORK,
    workers.show_work_of: WORK,
}
