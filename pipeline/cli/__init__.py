"""The command line: `pipeline …` and `python -m pipeline …`.

    program      the group of commands, and how an error becomes a sentence and an exit code
    startup      prepares the environment, the servers and the schema; output: --json, tables, next steps
    servers      up, migrate, sandbox        demo: all of it, with the steps of `demo_steps`
    fetch        persons, organizations, all, with their `progress`      send: users, accounts
    doctor       the workers, and the guide's headings of `troubleshooting`
    verify       compares both sides and the id map
    generated    the commands of operations; `calling` runs them here or over HTTP, `rendering` and its parts
                 hold the `presentation` of each

Exit codes: 0 done, 1 the work failed, 2 bad usage.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from pipeline.cli.program import program  # noqa: PLC0415 - children that fork from us import this package only

    program(prog_name="pipeline")
