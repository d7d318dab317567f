"""Every command has help with an example, `--json`, and the right exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cli.demo import LOOK_AT
from pipeline.cli.program import program
from pipeline.errors import ConfigurationError
from pipeline.local.errors import EmbeddedError
from pipeline.settings import SettingsError
from tests.command_line import Run


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from leaves(each, (*path, name))
    else:
        yield path, command


def groups(command: click.Group) -> Iterator[click.Group]:
    for each in command.commands.values():
        if isinstance(each, click.Group):
            yield each
            yield from groups(each)


COMMANDS = {" ".join(path): command for path, command in leaves(program)}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str, run: Run) -> None:
    result = run(*name.split(), "--help")

    assert result.code == 0
    assert f"pipeline {name}" in result.out.partition("Example:")[2]


def test_optional_arguments_have_brackets_in_the_help(run: Run) -> None:
    usage = run("fetch", "preview", "--help").out.splitlines()[0]

    assert usage.endswith("CONNECTOR [ENTITY]"), usage


def test_each_group_has_its_own_description() -> None:
    described = [group.help for group in groups(program)]

    assert all(described)
    assert len(set(described)) == len(described)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described(name: str) -> None:
    options = [each for each in COMMANDS[name].params if isinstance(each, click.Option)]

    assert [each.name for each in options if not each.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_can_print_json(name: str) -> None:
    assert "--json" in [flag for option in COMMANDS[name].params for flag in option.opts]


@pytest.mark.parametrize(
    "wrong",
    [("nonsense",), ("runs", "show", "acme", "x"), ("runs", "show"), ("settings", "set", "a"), ("fetch", "deals", "a")],
)
def test_bad_usage_ends_with_2(wrong: tuple[str, ...], run: Run) -> None:
    result = run(*wrong)

    assert result.code == 2
    assert "Usage:" in result.err


def test_lists_commands_in_the_order_they_are_needed(run: Run) -> None:
    listed = [
        line.split()[0] for line in run("--help").out.partition("Commands:")[2].splitlines() if line.startswith("  ")
    ]

    assert listed[:5] == ["up", "migrate", "sandbox", "demo", "connectors"]


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (SettingsError(["PORT must be a number"]), "PORT must be a number"),
        (EmbeddedError("no room on the disk"), "no room on the disk"),
        (ConfigurationError("unauthorized", "HTTP 401"), "connect again"),
    ],
)
def test_an_expected_error_is_explained(
    raised: Exception, words: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr("pipeline.cli.calling.open_database", fail)
    result = run("runs", "list", "acme")

    assert result.code == 1
    assert words in result.err
    assert "Traceback" not in result.err


PROJECT = Path(__file__).parents[3]
PLACES = ("pipeline", "sandbox", "deploy", "docs", "README.md", "CONTRIBUTING.md", "SECURITY.md")
NAMED = re.compile(r"(?:`|[Rr]un: |[Ss]ee: |^ *\$ |own_name\(\)\} )pipeline ([a-z][a-z -]*)", re.MULTILINE)
"""A command as a text names it: in code, or as a next step."""


def named_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the file and the words of each command that a text names."""
    for place in PLACES:
        root = PROJECT / place
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.suffix in {".py", ".md", ".html", ".service"} and "decisions" not in path.parts:
                for words in NAMED.findall(path.read_text("utf-8")):
                    yield str(path.relative_to(PROJECT)), words.split()
    for words in LOOK_AT:
        yield "demo", words.split()


def test_every_command_that_a_text_names_exists() -> None:
    unknown = []
    for where, words in named_commands():
        command: click.Command | None = program
        for word in words:
            if not isinstance(command, click.Group):
                break
            command = command.commands.get(word)
        if command is None:
            unknown.append((where, " ".join(words)))

    assert unknown == []
