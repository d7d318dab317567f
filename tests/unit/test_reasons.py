"""Reason codes: every code that can be raised has a meaning and a next step, and every entry is used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.domain.reasons import REASONS, advice_of, describe

PROJECT = Path(__file__).parents[2]
ERRORS = {"PipelineError", "Skip", "Retryable", "Rejected", "ConfigurationError", "LostLease", "RegistrationRefused"}
CODE = re.compile(r"[a-z]+(_[a-z]+)*")


def files() -> list[Path]:
    return sorted([*(PROJECT / "pipeline").rglob("*.py"), *(PROJECT / "db").rglob("*.py")])


def called(node: ast.Call) -> str:
    return (
        node.func.id
        if isinstance(node.func, ast.Name)
        else node.func.attr
        if isinstance(node.func, ast.Attribute)
        else ""
    )


def codes_in(node: ast.AST) -> Iterator[str]:
    """The texts an expression may come to: a constant, or either side of `a if b else c`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from codes_in(node.body)
        yield from codes_in(node.orelse)


def raised(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if called(node) in ERRORS and node.args:
                yield from codes_in(node.args[0])
            for keyword in node.keywords:
                if keyword.arg == "reason":
                    yield from codes_in(keyword.value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "reason":
                    yield from codes_in(value)


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in files()}


@cache
def all_raised() -> dict[str, set[str]]:
    """Reason code → the files that can raise it."""
    found: dict[str, set[str]] = {}
    for path, tree in trees().items():
        for code in raised(tree):
            found.setdefault(code, set()).add(str(path.relative_to(PROJECT)))
    return found


def all_texts() -> set[str]:
    """Every text in the code but the table itself: codes also travel through tables, as statuses do."""
    return {
        node.value
        for path, tree in trees().items()
        if path.name != "reasons.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_code_that_can_be_raised_is_explained() -> None:
    unexplained = {code: sorted(where) for code, where in all_raised().items() if code not in REASONS}

    assert unexplained == {}


def test_the_scan_finds_codes_at_all() -> None:
    assert len(all_raised()) > 20
    assert list(raised(ast.parse('raise Rejected("made_up", detail)\nevent(reason="other" if x else None)'))) == [
        "made_up",
        "other",
    ]


def test_every_status_leads_to_an_explained_code() -> None:
    from pipeline.clients.http_answers import STATUSES  # noqa: PLC0415 - named beside what it proves

    assert {reason for _, reason in STATUSES.values()} <= set(REASONS)


def test_no_explanation_is_left_over() -> None:
    assert set(REASONS) - all_texts() == set()


def test_every_reason_has_a_meaning_and_a_next_step() -> None:
    for code, reason in REASONS.items():
        assert CODE.fullmatch(code), code
        assert reason.meaning.endswith("."), code
        assert reason.advice.endswith("."), code
        assert reason.meaning != reason.advice, code
        assert describe(code) == f"{reason.meaning} {reason.advice}"


def test_the_next_step_of_a_value_names_the_system_that_has_the_value() -> None:
    """These codes are raised in both directions: a bad value is corrected where it is."""
    for code in ("wrong_type", "unusable_text", "too_long", "option_unknown", "shared_domain"):
        assert "Pipedrive" in advice_of(code, "incoming"), code
        assert "in Hull" in advice_of(code, "outgoing"), code
        assert describe(code, "outgoing") == f"{REASONS[code].meaning} {advice_of(code, 'outgoing')}"
