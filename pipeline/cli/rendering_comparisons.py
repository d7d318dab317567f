"""Text output of the commands about comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import duration, moment, say
from pipeline.operations import comparisons
from pipeline.operations.comparisons import ComparingAnswer, ComparisonRequested, RepairRequest
from pipeline.operations.models import ConnectorRequest, Done
from pipeline.operations.registry import Operation


def _show(request: ConnectorRequest, answer: ComparingAnswer) -> None:
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


def _started(request: ConnectorRequest, answer: ComparisonRequested) -> None:
    say(f"Job {answer.job_id} compares. See: pipeline jobs show {request.connector} {answer.job_id}")


def _repairing(request: RepairRequest, _answer: Done) -> None:
    say(f"{request.count:,} records are synchronized again. See: pipeline jobs show {request.connector} {request.id}")


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    comparisons.compare: Presentation(show=_started),
    comparisons.repair_comparison: Presentation(show=_repairing),
    comparisons.show_comparison: Presentation(show=_show),
}
