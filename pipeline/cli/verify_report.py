"""Output of `pipeline verify` as JSON and as text: the one place that shows the values of both sides."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from db.connector import Connector
from pipeline.cli.showing import duration, say, table
from pipeline.domain.drift import DEPARTED, Drift, DriftFinding
from pipeline.domain.kinds import Entity
from pipeline.jobs.verify.comparison import EntityReport
from pipeline.jobs.verify.verify import Report

EXAMPLES = 20
LONGEST_VALUE = 60


def as_json(found: Connector, job_id: int, report: Report, repaired: Counter[str] | None) -> dict[str, Any]:
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
    return {
        "pipedrive": part.pipedrive,
        "hull": part.hull,
        "id_map": part.id_map,
        "without_hull_id": part.without_hull_id,
        "compared": part.compared,
        "buckets": part.buckets,
        "buckets_differing": part.differing,
        "kinds": _kinds(part),
        "pending": dict(part.pending),
        "failed": dict(part.failed),
        "outdated": part.outdated,
        "findings": [
            {
                "kind": each.kind.value,
                "pipedrive_id": each.pipedrive_id,
                "hull_id": each.hull_id,
                "detail": each.detail or None,
                "differences": [
                    {"attribute": one.attribute, "pipedrive": one.pipedrive, "hull": one.hull}
                    for one in each.differences
                ],
            }
            for each in part.findings
        ],
        "unconfirmed": part.unconfirmed,
    }


def _kinds(part: EntityReport) -> dict[str, int]:
    counts = Counter(finding.kind for finding in part.findings)
    return {kind.value: counts[kind] for kind in Drift}


def print_report(found: Connector, job_id: int, report: Report, repaired: Counter[str] | None) -> None:
    """Print the counts, the pending and failed records, the first examples with their values, and the next step."""
    columns = ("", "Pipedrive", "Hull", "id map", "compared", *(kind.value for kind in Drift), "waiting", "failed")
    table("", columns, [_row(part) for part in report.entities])
    for part in report.entities:
        _print_asides(part)
    examples = [(part.entity, finding) for part in report.entities for finding in part.findings]
    for entity, finding in examples[:EXAMPLES]:
        _print_finding(entity, finding)
    if len(examples) > EXAMPLES:
        say(f"  and {len(examples) - EXAMPLES:,} more; all of them: pipeline verify {found.name} --json")
    costs = f"{duration(report.seconds)}, {report.tokens:,} tokens, {report.requests:,} requests"
    say(f"{'No drift' if not report.drift else f'{report.drift:,} differences'}: {costs}.")
    if repaired is not None:
        _print_repair(found, repaired)
    elif report.to_repair:
        say(f"Next: pipeline comparisons repair {found.name} {job_id} --count {report.to_repair}")


def _row(part: EntityReport) -> tuple[Any, ...]:
    living = sum(count for state, count in part.id_map.items() if state not in DEPARTED)
    waiting, failed = part.pending.total(), part.failed.total()
    return (
        part.entity.plural,
        part.pipedrive,
        part.hull,
        living,
        part.compared,
        *_kinds(part).values(),
        waiting,
        failed,
    )


def _print_asides(part: EntityReport) -> None:
    name = part.entity.plural
    for wait, count in part.pending.most_common():
        say(f"  {name}: {count:,} wait for {wait}")
    for reason, count in part.failed.most_common():
        say(f"  {name}: {count:,} are known to be left out, {reason}")
    if part.unconfirmed:
        say(f"  {name}: {len(part.unconfirmed):,} more seem to differ and were not checked a second time")
    if part.outdated:
        say(f"  {name}: {part.outdated:,} are correct in Hull, but were delivered with older settings or another claim")
    if part.hull is None:
        say(f"  {name}: Hull does not count by ranges of ids, so records that only Hull has were not searched")


def _print_finding(entity: Entity, finding: DriftFinding) -> None:
    who = f"{entity.value} {finding.pipedrive_id}" + (f" (Hull {finding.hull_id})" if finding.hull_id else "")
    say(f"  {finding.kind.value}: {who}{': ' + finding.detail if finding.detail else ''}")
    for each in finding.differences:
        say(f"      {each.attribute}: Pipedrive {_value(each.pipedrive)}, Hull {_value(each.hull)}")


def _value(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=True)
    return shown if len(shown) <= LONGEST_VALUE else f"{shown[:LONGEST_VALUE]}…"


def _print_repair(found: Connector, repaired: Counter[str]) -> None:
    left = repaired["left"]
    if count := repaired.total() - left:
        say(f"{count:,} are synchronized again by the workers. See: pipeline events list {found.name} --follow")
        if found.state != "active":
            say(f"  The connector is paused; resume it: pipeline connectors resume {found.name}")
    if left:
        say(f"{left:,} other records in Hull have a wrong Pipedrive id: remove it in Hull.")
