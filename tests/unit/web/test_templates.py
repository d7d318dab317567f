"""Templates, read without rendering: a page gives each variable that its template shows, and nothing is left over."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from flask import Flask
from jinja2 import Environment, meta, nodes

from pipeline.web.console.layout import register_layout

PROJECT: Final = Path(__file__).parents[3]
TEMPLATES: Final = PROJECT / "pipeline" / "web" / "templates"
RENDERING: Final = {"page", "render_template", "login_page"}
EVERYWHERE: Final = {"request", "g", "session", "config", "url_for", "now", "may", "query_with", "csrf_field"}
"""What Flask and `register_layout` give to every template."""
LAYOUT: Final = {"connector", "tab", "tabs", "open_failures", "most_counted", "operator", "theme", "notice"}
"""What `page` gives to every page."""
NAMES: Final = sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.html"))


@cache
def environment() -> Environment:
    app = Flask(__name__)
    register_layout(app)
    return app.jinja_env


@cache
def parsed(name: str) -> nodes.Template:
    return environment().parse((TEMPLATES / name).read_text())


@cache
def sources() -> str:
    return "\n".join(path.read_text() for path in (PROJECT / "pipeline" / "web").rglob("*.py"))


def imports_of(name: str) -> dict[str, tuple[str, str]]:
    """Return name in this template → (template, macro)."""
    found = {}
    for each in parsed(name).find_all(nodes.FromImport):
        assert isinstance(each.template, nodes.Const)
        for one in each.names:
            macro, alias = one if isinstance(one, tuple) else (one, one)
            found[alias] = (each.template.value, macro)
    return found


def calls_of(name: str) -> set[str]:
    return {each.node.name for each in parsed(name).find_all(nodes.Call) if isinstance(each.node, nodes.Name)}


def given() -> dict[str, set[str] | None]:
    """Return template → the variables that its pages give; None where some are not written at the call."""
    found: dict[str, set[str] | None] = {}
    for path in (PROJECT / "pipeline" / "web").rglob("*.py"):
        for call in rendering_calls(ast.parse(path.read_text())):
            template = call.args[0]
            assert isinstance(call.func, ast.Name)
            if not isinstance(template, ast.Constant):
                continue
            name = template.value if call.func.id == "render_template" else f"console/{template.value}"
            names = {each.arg for each in call.keywords if each.arg}
            is_whole = all(each.arg for each in call.keywords)
            known = found.get(name, set())
            found[name] = known | names if is_whole and known is not None else None
    return found


def rendering_calls(tree: ast.AST) -> Iterator[ast.Call]:
    for each in ast.walk(tree):
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in RENDERING and each.args:
            yield each


def variables_of(name: str) -> set[str]:
    """Return the variables that a template shows and does not set itself."""
    template = parsed(name)
    own = set(imports_of(name)) | {each.name for each in template.find_all(nodes.Macro)}
    own |= {each.name for each in template.find_all(nodes.Name) if each.ctx == "store"}
    return meta.find_undeclared_variables(template) - own - EVERYWHERE - set(environment().globals)


@pytest.mark.parametrize(("name", "values"), [(name, each) for name, each in given().items() if each is not None])
def test_a_page_gives_the_variables_that_its_template_shows(name: str, values: set[str]) -> None:
    assert variables_of(name) - values <= LAYOUT


def test_every_import_is_used() -> None:
    assert [(name, macro) for name in NAMES for macro in set(imports_of(name)) - calls_of(name)] == []


def test_a_macro_is_imported_where_it_is_called() -> None:
    """Also in an included template: what the one around it imports may change."""
    own = {name: {each.name for each in parsed(name).find_all(nodes.Macro)} for name in NAMES}
    macros = set().union(*own.values())

    assert [
        (name, call) for name in NAMES for call in calls_of(name) & macros - own[name] - set(imports_of(name))
    ] == []


def test_every_macro_is_used() -> None:
    made = {(name, each.name) for name in NAMES for each in parsed(name).find_all(nodes.Macro)}
    used = {imports_of(name)[call] for name in NAMES for call in calls_of(name) & set(imports_of(name))}
    used |= {(name, call) for name in NAMES for call in calls_of(name)}

    assert made - used == set()


def test_every_template_is_used() -> None:
    whole = "\n".join((TEMPLATES / name).read_text() for name in NAMES)
    by_name = ("set_up_", "settings_")  # drawn by the name of a step or of a kind of section
    plain = [name for name in NAMES if not name.rpartition("/")[2].startswith(by_name)]

    assert [name for name in plain if name.rpartition("/")[2] not in sources() and name not in whole] == []
