"""`pipeline doctor`: checks the processes, and each heading of the guide's Troubleshooting."""

from __future__ import annotations

from typing import Any

import click
from sqlalchemy.orm import Session

from db import connector as connectors
from db.figures import oldest_due_s
from db.session import is_read_only, loud_settings, transaction
from pipeline.cli.calling import LocalCaller
from pipeline.cli.output import duration, echo, json_option, show
from pipeline.cli.troubleshooting import BAD, NOTE, OK, Answer, Finding, examine
from pipeline.operations import workers
from pipeline.operations.workers import WorkerNodes

MARKS = {OK: "✓", NOTE: "·", BAD: "✗"}


@click.command()
@click.argument("connector", required=False)
@json_option
def doctor(connector: str | None) -> None:
    """Show what is wrong and what to do: the workers first, then each heading of the guide's Troubleshooting.

    Reads the database and the broker only, so it costs no tokens. Exit code 1 if an operator must act.

    \b
    Example:
      pipeline doctor acme
    """
    caller = LocalCaller()
    found = workers.inspect_nodes()
    with transaction() as session:
        chosen = [caller.find_connector(connector)] if connector else connectors.all_connectors(session)
        machine = Answer(
            heading="Is everything running?",
            findings=[*_database(session), *_machine(found, oldest_due_s(session), bool(chosen))],
        )
        answers = {each.name: examine(session, each) for each in chosen}
    document = {
        "machinery": _as_json([machine])[0],
        "connectors": {name: _as_json(each) for name, each in answers.items()},
    }
    show(document, lambda: _print(machine, answers))
    everything = [machine, *(answer for each in answers.values() for answer in each)]
    if any(finding.level == BAD for answer in everything for finding in answer.findings):
        click.get_current_context().exit(1)


COMMANDS: tuple[click.Command, ...] = (doctor,)


def _database(session: Session) -> list[Finding]:
    if is_read_only(session):
        step = "promote it, or point DATABASE_URL at the primary; work then continues automatically"
        return [Finding(BAD, "the database is read-only: no work can be done", step)]
    loud = ", ".join(loud_settings(session))
    if loud:
        text = f"PostgreSQL may write values of records to its log: {loud}"
        step = f"as a superuser: GRANT SET ON PARAMETER {loud} TO our role (PostgreSQL 15 and later), then restart our processes"
        return [Finding(NOTE, text, step)]
    return []


def _machine(found: WorkerNodes, due_s: float, has_connectors: bool) -> list[Finding]:
    if found.broker != "ok":
        return [Finding(BAD, f"the broker {found.broker}", "check BROKER_URL, then start it")]
    findings = [Finding(OK, "the database and the broker answer")]
    if found.unattended:
        queues = ", ".join(found.unattended)
        findings.append(Finding(BAD, f"no worker listens to {queues}", f"start one: {workers.worker_command()}"))
    else:
        nodes = "; ".join(f"{name}: {', '.join(queues)}" for name, queues in sorted(found.workers.items()))
        findings.append(Finding(OK, f"workers answer ({nodes})"))
    if found.beats:
        findings.append(Finding(OK, f"beat ticks ({', '.join(found.beats)})"))
    else:
        step = "start it: celery -A pipeline beat"
        findings.append(Finding(BAD, "beat does not answer: no sweeps, no schedules", step))
    waiting = ", ".join(f"{queue} {count:,}" for queue, count in found.waiting.items())
    findings.append(Finding(OK, f"messages in the queues: {waiting}"))
    if due_s > workers.LATE_S:
        text = f"the oldest work has been due for {duration(due_s)}"
        findings.append(Finding(BAD, text, "start more workers, or check why they fail"))
    if not has_connectors:
        step = "add one: pipeline connectors add --help"
        findings.append(Finding(NOTE, "there is no connector yet", step))
    return findings


def _as_json(answers: list[Answer]) -> list[dict[str, Any]]:
    return [
        {
            "heading": answer.heading,
            "findings": [{"level": f.level, "text": f.text, "next": f.next_step or None} for f in answer.findings],
        }
        for answer in answers
    ]


def _print(machine: Answer, answers: dict[str, list[Answer]]) -> None:
    _print_answer(machine)
    for name, headings in answers.items():
        echo(f"\nConnector {name}")
        for answer in headings:
            _print_answer(answer)


def _print_answer(answer: Answer) -> None:
    echo(f"\n{answer.heading}")
    for finding in answer.findings:
        echo(f"  {MARKS[finding.level]} {finding.text}")
        if finding.next_step:
            echo(f"      → {finding.next_step}")
