"""The wheel holds every file that the code opens, and the code opens no file outside its packages."""

from __future__ import annotations

import ast
import re
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.package.build import PROJECT, build, tracked_files

PACKAGES = ("pipeline", "db", "sandbox")
MAY_KNOW_WHERE_IT_LIES = {"pipeline/settings.py", "db/migrate.py"}
"""data_dir asks whether it lies in a clone, which then holds `.data`; migrate names a folder of its own package."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the paths of (wheel, sdist)."""
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def in_wheel(built: tuple[Path, Path]) -> set[str]:
    with zipfile.ZipFile(built[0]) as wheel:
        return set(wheel.namelist())


def sources() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every module that is installed."""
    for path in tracked_files():
        if path.suffix == ".py" and path.parts[0] in PACKAGES:
            yield str(path), (PROJECT / path).read_text("utf-8")


def opened() -> set[str]:
    """Return the paths inside the packages that the code names: resources, templates, static files."""
    texts = [text for _, text in sources()]
    texts += [(PROJECT / path).read_text("utf-8") for path in tracked_files() if path.suffix == ".html"]
    found: set[str] = set()
    for text in texts:
        for package, name in re.findall(r'files\("([\w.]+)"\)\.joinpath\("([\w./]+)"\)', text):
            found.add(f"{package.replace('.', '/')}/{name}")
        for name in re.findall(r'"(?:console/)?(\w+\.html)"', text):
            folder = "templates" if name.startswith("authorisation") else "templates/console"
            found.add(f"pipeline/web/{folder}/{name}")
        for name in re.findall(r"""(?:filename=|send_static_file\()["']([\w.]+)["']""", text):
            found.add(f"pipeline/web/static/{name}")
    return found


def test_the_wheel_holds_every_file_of_the_packages(in_wheel: set[str]) -> None:
    wanted = {str(path) for path in tracked_files() if path.parts[0] in PACKAGES} | {"celeryconfig.py"}

    assert sorted(wanted - in_wheel) == []


def test_the_wheel_holds_every_file_that_the_code_names(in_wheel: set[str]) -> None:
    named = opened()

    assert sorted(named - in_wheel) == []
    assert {"pipeline/web/guide.md", "pipeline/clients/burst.lua", "pipeline/web/static/logo.png"} <= named
    assert len(named) > 40


def test_the_wheel_holds_nothing_else(in_wheel: set[str]) -> None:
    packages = {
        name for name in in_wheel if not name.startswith(f"hull_pipedrive-{version('hull-pipedrive')}.dist-info/")
    }

    assert {name.split("/")[0] for name in packages} == {*PACKAGES, "celeryconfig.py"}


def test_the_wheel_contains_the_license(built: tuple[Path, Path], in_wheel: set[str]) -> None:
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert "LICENSE" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in in_wheel)


def test_the_guide_is_the_one_of_docs(built: tuple[Path, Path]) -> None:
    guide = (PROJECT / "docs" / "guide.md").read_bytes()

    with zipfile.ZipFile(built[0]) as wheel, tarfile.open(built[1]) as sdist:
        assert wheel.read("pipeline/web/guide.md") == guide
        (member,) = [each for each in sdist.getmembers() if each.name.endswith("/pipeline/web/guide.md")]
        assert member.isreg()


def test_no_module_depends_on_the_clone() -> None:
    """A module that asks where it lies finds something else in a wheel than in a clone."""
    knowing = {
        path
        for path, text in sources()
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, ast.Name) and node.id == "__file__")
        or (isinstance(node, ast.ImportFrom) and any(each.name == "PROJECT_DIR" for each in node.names))
        or (isinstance(node, ast.Attribute) and (node.attr, ast.unparse(node.value)) == ("path", "sys"))
    }

    assert knowing - MAY_KNOW_WHERE_IT_LIES == set()
