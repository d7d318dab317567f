"""`pipeline verify`: compare Pipedrive, Hull and the id map, and repair drift on request."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import click

from db import connector as connectors
from db import failure_filter
from db import job as jobs
from db.connector import Connector
from db.failure_filter import FailureFilter
from db.session import transaction
from pipeline.cli.calling import LocalCaller
from pipeline.cli.output import Failed, connector_argument, duration, echo, json_option, show, table, wants_json
from pipeline.cli.progress import ProgressView
from pipeline.domain.deletions import DELETED_STATES
from pipeline.domain.drift import Drift, DriftFinding
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import describe
from pipeline.domain.settings import read_settings
from pipeline.jobs.runtime import run_job
from pipeline.jobs.verify import verify as verifying
from pipeline.jobs.verify.report import EntityReport
from pipeline.jobs.verify.verify import Report
from pipeline.operations.comparisons import NewComparison, RepairRequest, compare, cost_of, repair_comparison
from pipeline.sync.stage import TURNS, StageFailed

EXAMPLES = 20
LONGEST_VALUE = 60
ASK_ABOVE = 0.1
"""Share of the daily budget above which the command asks for confirmation."""
SLICE_S: Final = 1.0
"""How long this process compares before it shows the progress again."""
LOOK_S: Final = 0.5
"""Pause while a worker runs the comparison."""
LONGEST_WAIT_S: Final = 60.0
BUDGET: Final = TURNS["daily_budget_spent"]


@click.command()
@connector_argument
@click.option("--repair", is_flag=True, help="Synchronize drifted records again; the workers do it.")
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="Compare only N records of each kind, at random."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation, whatever the cost.")
@json_option
def verify(connector: str, repair: bool, sample: int | None, yes: bool) -> None:
    """Compare Pipedrive, Hull and the id map, record by record, and list every difference.

    Reads everything (10 tokens of Pipedrive's daily budget for 500 records) and changes nothing, unless --repair is given.
    Pending changes and open failures are counted separately. Exit code 1 if there is drift.
    The workers compare; Ctrl-C stops showing their progress, and the same command shows it again.
    --repair prints how many records it would change, and asks for confirmation on a terminal.

    \b
    The columns of the report count records that are:
      missing    in Pipedrive, not in Hull
      extra      in Hull or in the id map, not in Pipedrive
      different  in Hull with another value of a mapped attribute
      unlinked   Users with no Account, or with a wrong one
      unmapped   on both sides, but not joined by the id map
      unmarked   deleted in Pipedrive, but not marked as deleted in Hull
      mismapped  in the id map with another Hull id than in Hull
      waiting    changed, and the change is still being processed
      failed     known to be left out, with an open failure

    \b
    Example:
      pipeline verify acme --sample 300
      pipeline verify acme --repair
    """
    caller = LocalCaller()
    found = caller.find_connector(connector)
    with transaction() as session:
        budget = read_settings(connectors.settings_in_force(session, found.key).document).daily_tokens
        cost = cost_of(session, found.key, sample)
    if not (wants_json() or _may_go_on(cost, budget, asks=not yes)):
        raise Failed("nothing was compared", "a sample costs less: --sample N")
    job_id, report = run_comparison(found, sample)
    repaired = _repair(found, job_id, report, asks=not yes) if repair else None
    show(_as_json(found, job_id, report, repaired), lambda: _print_report(found, job_id, report, repaired))
    if report.drift:
        click.get_current_context().exit(1)


COMMANDS: tuple[click.Command, ...] = (verify,)


def _may_go_on(cost: int | None, budget: int, *, asks: bool) -> bool:
    """Print the cost; on a terminal, ask for confirmation of a large share of the budget. `budget` 0 means no limit."""
    if cost is None:
        echo("The cost is not known before the first full fetch: 10 tokens for 500 records of Pipedrive.")
        return not (asks and sys.stdin.isatty()) or click.confirm("Go on?")
    share = cost / budget if budget else 0.0
    of_day = f", {share:.1%} of the day's {budget:,}" if budget else ""
    echo(f"This costs about {cost:,} tokens of Pipedrive's daily budget{of_day}.")
    return not (asks and share > ASK_ABOVE and sys.stdin.isatty()) or click.confirm("Go on?")


def run_comparison(found: Connector, sample: int | None) -> tuple[int, Report]:
    """Start the comparison, or join the running one; return the id of its job and its report. This process helps the workers.

    Raises: Failed if it fails or waits for long, or on Ctrl-C.
    """
    wanted = {} if sample is None else {"sample": sample}
    request = NewComparison(connector=found.name, everything=sample is None, **wanted)
    job_id = LocalCaller().call(compare, request).job_id
    return job_id, _follow(found, job_id, f"pipeline verify {found.name}" + (f" --sample {sample}" if sample else ""))


def _repair(found: Connector, job_id: int, report: Report, *, asks: bool) -> Counter[str] | None:
    """Print how many records a repair would change, and request it; None if the person declines."""
    count = report.to_repair
    if not wants_json():
        echo(f"The repair synchronizes {count:,} records again.")
        if asks and count and sys.stdin.isatty() and not click.confirm("Repair them?"):
            return None
    request = RepairRequest(connector=found.name, id=job_id, count=count)
    LocalCaller().call(repair_comparison, request)
    return _follow(found, job_id, f"pipeline jobs show {found.name} {job_id}").repaired or Counter()


def _follow(found: Connector, job_id: int, again: str) -> Report:
    try:
        _work_until_done(found, job_id, again)
    except KeyboardInterrupt:
        raise Failed("stopped waiting; the workers continue the comparison", f"see the result: {again}") from None
    with transaction() as session:
        return verifying.report_of(session, jobs.get_job(session, job_id))


def _work_until_done(found: Connector, job_id: int, again: str) -> None:
    with ProgressView() as view:
        while True:
            with transaction() as session:
                job = jobs.get_job(session, job_id)
            report = verifying.progress_of(job)
            begun = [part for part in report.entities if part.phase != "start"]
            lines = [(_line(part, report.tokens), _share(part)) for part in begun]
            view.show(lines, has_ended=job.state == "done")
            if job.state == "done":
                return
            if job.state == "paused":
                raise Failed("the comparison is paused", f"run: pipeline jobs resume {found.name} {job_id}")
            if job.state == "aborted":
                raise Failed("the comparison was aborted by an operator", f"start it again: {again}")
            if job.state != "due":
                raise Failed(
                    f"the comparison failed: {describe(job.reason or 'internal_error')}", "pipeline failures list"
                )
            wait_s = (job.due_at - datetime.now(UTC)).total_seconds()
            if job.waits_for and wait_s > LONGEST_WAIT_S:
                is_spent = job.waits_for == BUDGET
                why = "Pipedrive's daily budget of tokens is spent" if is_spent else f"it waits: {job.waits_for}"
                message = f"{why}; the comparison continues automatically in {duration(wait_s)}"
                raise Failed(message, f"see the result: {again}")
            with suppress(StageFailed):  # the row has the outcome
                if not run_job(job_id, None, slice_s=SLICE_S):
                    time.sleep(LOOK_S)


def _as_json(found: Connector, job_id: int, report: Report, repaired: Counter[str] | None) -> dict[str, Any]:
    """Return the stable JSON of --json. `differences` contain values of records: they are printed and never stored."""
    return {
        "connector": found.name,
        "job": job_id,
        "drift": report.drift,
        "seconds": round(report.seconds, 3),
        "tokens": report.tokens,
        "requests": report.requests,
        "to_repair": report.to_repair,
        "repaired": None if repaired is None else dict(repaired),
        "entities": {part.entity.value: _entity_json(part) for part in report.entities},
    }


def _entity_json(part: EntityReport) -> dict[str, Any]:
    counts = ("pipedrive", "hull", "id_map", "without_hull_id", "compared", "buckets", "outdated", "unconfirmed")
    return {
        **{name: getattr(part, name) for name in counts},
        "buckets_differing": part.differing,
        "kinds": _kinds(part),
        "pending": dict(part.pending),
        "failed": dict(part.failed),
        "findings": [
            {
                "kind": each.kind.value,
                "pipedrive_id": each.pipedrive_id,
                "hull_id": each.hull_id,
                "detail": each.detail or None,
                "differences": [asdict(one) for one in each.differences],
            }
            for each in part.findings
        ],
    }


def _kinds(part: EntityReport) -> dict[str, int]:
    """Return kind of drift → number of findings."""
    counts = Counter(finding.kind for finding in part.findings)
    return {kind.value: counts[kind] for kind in Drift}


def _print_report(found: Connector, job_id: int, report: Report, repaired: Counter[str] | None) -> None:
    """Print the counts, the pending and failed records, the first examples with their values, and the next step."""
    columns = ("", "Pipedrive", "Hull", "id map", "compared", *(kind.value for kind in Drift), "waiting", "failed")
    table("", columns, [_row(part) for part in report.entities])
    for part in report.entities:
        _print_asides(part)
    examples = [(part.entity, finding) for part in report.entities for finding in part.findings]
    for entity, finding in examples[:EXAMPLES]:
        _print_finding(entity, finding)
    if len(examples) > EXAMPLES:
        echo(f"  and {len(examples) - EXAMPLES:,} more; all of them: pipeline verify {found.name} --json")
    with transaction() as session:
        left_out = failure_filter.count_failures(session, FailureFilter(connector_key=found.key, kind="field"))
    if left_out:
        field = "field is" if left_out == 1 else "fields are"
        echo(f"  {left_out:,} left-out {field} not compared; see: pipeline failures list {found.name} --kind field")
    costs = f"{duration(report.seconds)}, {report.tokens:,} tokens, {report.requests:,} requests"
    found_drift = {0: "No drift", 1: "1 difference"}.get(report.drift, f"{report.drift:,} differences")
    echo(f"{found_drift}: {costs}.")
    if repaired is not None:
        _print_repair(found, repaired)
    elif report.to_repair:
        echo(f"Next: pipeline comparisons repair {found.name} {job_id} --count {report.to_repair}")


def _row(part: EntityReport) -> tuple[Any, ...]:
    living = sum(count for state, count in part.id_map.items() if state not in DELETED_STATES)
    waiting, failed = part.pending.total(), part.failed.total()
    counts = (part.pipedrive, part.hull, living, part.compared)
    return (part.entity.plural, *counts, *_kinds(part).values(), waiting, failed)


def _print_asides(part: EntityReport) -> None:
    name = part.entity.plural
    for wait, count in part.pending.most_common():
        echo(f"  {name}: {count:,} wait for {wait}")
    for reason, count in part.failed.most_common():
        echo(f"  {name}: {count:,} are known to be left out, {reason}")
    if part.unconfirmed:
        echo(f"  {name}: {len(part.unconfirmed):,} more seem to differ and were not checked a second time")
    if part.outdated:
        echo(
            f"  {name}: {part.outdated:,} are correct in Hull, but were delivered with older settings or another claim"
        )
    if part.hull is None:
        echo(f"  {name}: Hull does not count by ranges of ids, so records that only Hull has were not searched")


def _print_finding(entity: Entity, finding: DriftFinding) -> None:
    who = f"{entity.value} {finding.pipedrive_id}" + (f" (Hull {finding.hull_id})" if finding.hull_id else "")
    echo(f"  {finding.kind.value}: {who}{': ' + finding.detail if finding.detail else ''}")
    for each in finding.differences:
        echo(f"      {each.attribute}: Pipedrive {_value(each.pipedrive)}, Hull {_value(each.hull)}")


def _value(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= LONGEST_VALUE else f"{shown[:LONGEST_VALUE]}…"


def _print_repair(found: Connector, repaired: Counter[str]) -> None:
    left = repaired["left"]
    if count := repaired.total() - left:
        echo(f"{count:,} are synchronized again by the workers. See: pipeline events list {found.name} --follow")
        if found.state != "active":
            echo(f"  The connector is paused; resume it: pipeline connectors resume {found.name}")
    if left:
        echo(f"{left:,} other records in Hull have a wrong Pipedrive id: remove it in Hull.")


def _share(part: EntityReport) -> float | None:
    total = max(part.expected, part.compared)
    return part.compared / total if total else None


def _line(part: EntityReport, tokens: int) -> str:
    of = f" of about {part.expected:,}" if part.expected > part.compared else ""
    return f"{part.entity.plural}: {part.compared:,}{of} compared, {part.suspects:,} to check, {tokens:,} tokens"
