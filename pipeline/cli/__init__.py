"""The command line: `pipeline …` and `python -m pipeline …`.

    program      the group of commands, and how an error becomes a sentence and an exit code
    opening      prepares the environment, the servers and the schema; showing: --json, tables, next steps
    servers      up, migrate, sandbox        demo: all of it, with the steps of `story`
    connectors   add, list, show, pause, resume, remove
    fetch        persons, organizations, all; `watching` is its --wait    runs: list, show, cancel
    send         users, accounts
    doctor       the workers (`insight.machinery`), and the guide's headings (`troubleshooting`, `freshness`) in `findings`
    verify       compares both sides and the id map; `verify_report` prints the result
    generated    the commands of operations; `calling` runs them here or over HTTP, `rendering` prints them as
                 their `presentation` says

Exit codes: 0 done, 1 the work failed, 2 bad usage.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from pipeline.cli.program import program  # noqa: PLC0415 - children that fork from us import this package only

    program(prog_name="pipeline")
