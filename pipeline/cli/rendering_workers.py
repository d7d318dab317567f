"""Text output of the commands about workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click
from pydantic import BaseModel

from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import duration, moment, say, table
from pipeline.operations import workers
from pipeline.operations.registry import Operation
from pipeline.operations.workers import WorkAnswer

STATES: Final = ("running", "due", "waiting", "put_off", "abandoned", "held")


def _work(_request: BaseModel, answer: WorkAnswer) -> None:
    say(f"{answer.sentence} {answer.next_step}".rstrip())
    for name, at in (("last sweep", answer.swept_at), ("beat's last tick", answer.ticked_at)):
        say(f"  {name:<17} {f'{moment(at)} UTC' if at else '-'}")
    say(f"  {'oldest due work':<17} {duration(answer.due_s) if answer.due_s > 0 else '-'}")
    table(
        "",
        ("queue", "messages", *(state.replace("_", " ") for state in STATES), "workers"),
        [
            (each.name, each.messages, *(each.batches.get(state, 0) for state in STATES), ", ".join(each.workers))
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


def _fail_on_error(answer: WorkAnswer) -> None:
    if answer.level == "error":
        raise click.exceptions.Exit(1)


_PRESENTATION: Final = Presentation(show=_work, check=_fail_on_error)
PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    workers.show_work: _PRESENTATION,
    workers.show_work_of: _PRESENTATION,
}
