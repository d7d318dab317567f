"""Install the npm packages that contract tests drive.

In: package names, each pinned in `node/package.json` and its lock. Out: a folder holding `node_modules`, outside the
checkout and keyed by the lock, so that it is made once. Without Node.js a test is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

MANIFEST = Path(__file__).parent / "node"
INSTALL_TIMEOUT_S = 180


def install(*names: str) -> Path:
    """Install the locked packages if needed, and return their folder: `NODE_PATH` is its `node_modules`."""
    pinned = json.loads((MANIFEST / "package.json").read_text())["dependencies"]
    missing = set(names) - set(pinned)
    assert not missing, f"not in {MANIFEST / 'package.json'}: {sorted(missing)}"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        absent("Node.js 20 or newer with npm (for instance: apt-get install nodejs npm)")
    folder = _cache() / hashlib.sha256((MANIFEST / "package-lock.json").read_bytes()).hexdigest()[:16]
    if not folder.exists():
        _install(str(npm), folder)
    return folder


def run(script: Path, folder: Path, *arguments: str, timeout_s: float = 60) -> str:
    """Run a CommonJS script against the installed packages; its standard output."""
    environment = {"PATH": os.environ["PATH"], "NODE_PATH": str(folder / "node_modules"), "NODE_NO_WARNINGS": "1"}
    command = ["node", str(script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def absent(what: str) -> None:
    """Skip the test that needs `what`, naming it. With REQUIRE_ALL=1 a skipped test counts as failed."""
    pytest.skip(f"needs {what}")


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "hull-pipedrive" / "node"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _install(npm: str, folder: Path) -> None:
    """Install beside the final place and move in at the end, so that a broken install is never taken for a whole one."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        work = Path(scratch) / "work"
        shutil.copytree(MANIFEST, work)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        if done.returncode != 0:
            absent(f"an npm registry: npm ci ended with {done.returncode}")
        # Another test process may have been faster; its install is as good.
        if not folder.exists():
            work.rename(folder)
