"""The pages under docs, held to the code: links lead somewhere, what is named exists, what must be complete is.

`python -m tests.unit.test_docs` writes the generated parts again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from pipeline.domain.reasons import REASONS, Reason

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
MODULES = DOCS / "modules.md"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(PROJECT.glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE_PATH = re.compile(r"(?:pipeline|db|tests|sandbox|benchmarks|deploy|docs)/[\w./-]*\w/?")
FUNCTION = re.compile(r"`((?:pipeline|db)/[\w/]+\.py)`\s+\*\*(\w+)\*\*")
BEGIN, END = "<!-- reasons: begin -->", "<!-- reasons: end -->"
SCREEN = 60
"""Lines of a decision: more is not one screen."""
PROMISED: set[str] = set()
"""Commands that advice names already and that are not built: each must still be missing."""


def by_name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def spans(page: Path) -> list[str]:
    """Return the texts in backticks, and the lines of code blocks."""
    text = page.read_text()
    blocks = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    return SPAN.findall(FENCE.sub("", text)) + blocks


def anchors(page: Path) -> set[str]:
    """The anchors that Markdown viewers give to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = {path for span in spans(page) for path in CODE_PATH.findall(span) if span.startswith(path)}

    assert sorted(path for path in named if not (PROJECT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_modules_that_are_to_be_run_exist(page: Path) -> None:
    named = {name for span in spans(page) for name in re.findall(r"python -m ((?:\w+\.)+\w+)", span)}

    assert sorted(name for name in named if find_spec(name) is None) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != MODULES], ids=by_name)
def test_commands_that_are_named_exist(page: Path) -> None:
    named = {line for line in spans(page) if line.startswith("pipeline ")}

    assert {line for line in named - PROMISED if not is_command(line)} == set()


def is_command(line: str) -> bool:
    """Whether the words after `pipeline` lead to a command, and its long options are ones it has."""
    from pipeline.cli.program import program  # noqa: PLC0415 - the command line imports all packages

    found: click.Command = program
    words = line.split()[1:]
    while words and isinstance(found, click.Group) and not words[0].startswith("-"):
        if words[0] not in found.commands:
            return False
        found = found.commands[words.pop(0)]
    options = {name for parameter in found.params for name in parameter.opts}
    return all(word.partition("=")[0] in options for word in words if re.match(r"--\w", word))


def test_a_command_that_does_not_exist_is_seen() -> None:
    assert is_command("pipeline fetch all CONNECTOR --wait")
    assert not is_command("pipeline fetch everything CONNECTOR")
    assert not is_command("pipeline fetch all CONNECTOR --made-up")


def test_commands_that_are_promised_are_still_missing() -> None:
    assert {line for line in PROMISED if is_command(line)} == set()


def test_the_flows_name_functions_that_exist() -> None:
    text = (DOCS / "architecture.md").read_text()
    named = FUNCTION.findall(text)

    assert [step for step in named if not has_function(*step)] == []
    assert len(named) > 35
    assert not has_function("pipeline/web/webhooks.py", "made_up")


def has_function(path: str, name: str) -> bool:
    """Whether the file defines this function, or a class with a method of that name."""
    tree = ast.parse((PROJECT / path).read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(tree))


def test_the_flows_are_short() -> None:
    text = (DOCS / "architecture.md").read_text()
    flows = text.partition("## A webhook")[2].partition("## Layers")[0]

    assert len(flows.splitlines()) <= 150


def test_every_module_is_listed() -> None:
    assert MODULES.read_text() == module_list(), "write it again with: make docs"


def module_list() -> str:
    """Return docs/modules.md as it must be now: every module by package, with the first sentence of its docstring."""
    lines = ["# Modules", "", "Written by `make docs` from the docstrings.", ""]
    packages: dict[str, list[str]] = {}
    for path in sorted(path for top in ("pipeline", "db") for path in (PROJECT / top).rglob("*.py")):
        summary = summary_of(path)
        if summary and "migrations" not in path.parts:
            packages.setdefault(by_name(path.parent), []).append(f"- `{path.name}`: {summary}")
    for package, modules in sorted(packages.items()):
        lines += [f"## {package}", "", *modules, ""]
    return "\n".join(lines)


def summary_of(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0].removesuffix(".")


def test_every_table_and_model_is_explained() -> None:
    from db.base import Base  # noqa: PLC0415 - named beside what it proves
    from db.migrate import MIGRATIONS  # noqa: PLC0415

    for path in sorted(MIGRATIONS.parent.glob("*.py")):
        __import__(f"db.{path.stem}")
    explained = {span for page in ("glossary.md", "engine.md") for span in spans(DOCS / page)}
    names = {mapper.class_.__name__ for mapper in Base.registry.mappers} | set(Base.metadata.tables)

    assert sorted(names - explained) == []
    assert len(names) > 20


def test_every_reason_code_is_in_the_runbook() -> None:
    text = (DOCS / "operations.md").read_text()

    assert text == with_reasons(text), "write it again with: make docs"


def with_reasons(text: str) -> str:
    """The runbook with the table of reason codes as it must be now."""
    rows = [f"| `{code}` | {reason.meaning} | {_next_step(reason)} |" for code, reason in sorted(REASONS.items())]
    table = "\n".join(["| code | meaning | what to do |", "|---|---|---|", *rows])
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def _next_step(reason: Reason) -> str:
    """Return the next step, of both directions if they differ."""
    return f"{reason.advice} Outgoing: {reason.outgoing_advice}" if reason.outgoing_advice else reason.advice


def test_every_decision_is_numbered_listed_and_short() -> None:
    decisions = sorted((DOCS / "decisions").glob("*.md"))
    listed = {target for target in LINK.findall((DOCS / "architecture.md").read_text()) if "decisions/" in target}

    assert [path.name[:4] for path in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    assert {f"decisions/{path.name}" for path in decisions} <= listed
    for path in decisions:
        lines = path.read_text().splitlines()
        assert lines[0].startswith(f"# {int(path.name[:4])}. "), path.name
        assert len(lines) <= SCREEN, path.name


def test_every_remote_fact_names_where_it_is_used() -> None:
    rows = [line.split(" | ") for line in (DOCS / "remote-facts.md").read_text().splitlines() if line.startswith("| ")]
    facts = [row for row in rows if row[0] != "| fact"]

    assert [row[0] for row in facts if not CODE_PATH.search(row[2])] == []
    assert len(facts) > 30


def test_pages_that_fit_the_page_are_readable() -> None:
    """No page holds a tab or trailing spaces, and each begins with its title."""
    untidy = [
        by_name(page)
        for page in sorted(DOCS.rglob("*.md"))
        if "\t" in page.read_text() or re.search(r" +$", page.read_text(), re.MULTILINE)
    ]
    untitled = [by_name(page) for page in sorted(DOCS.rglob("*.md")) if not page.read_text().startswith("# ")]

    assert (untidy, untitled) == ([], [])


if __name__ == "__main__":
    runbook = DOCS / "operations.md"
    runbook.write_text(with_reasons(runbook.read_text()))
    MODULES.write_text(module_list())
