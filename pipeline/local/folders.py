"""Folders and their owners.

    DATA_DIR/log             of the account that runs the pipeline
    servers/                 of the servers: postgres/ and valkey/ (data), run/ (sockets), programs-…/ (root only)
    DATA_DIR/embedded.json   the paths of `servers` and the sockets
    DATA_DIR/servers.lock    the process that runs them (`pipeline.local.servers`)

An ordinary account keeps `servers` in DATA_DIR. PostgreSQL refuses to run as root, so root runs both servers under an
existing unprivileged account, which must reach the folder. So for root `servers` is in DATA_DIR only if every account
may pass through its parents and it is not in a home folder; otherwise it is under /var/lib. Mode and owner of
existing folders are never changed. Sockets are in a short folder if their paths would be too long (a unix socket's path
has at most 107 bytes: https://man7.org/linux/man-pages/man7/unix.7.html).
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.local.errors import EmbeddedError, failed
from pipeline.settings import home_of_account, make_data_dir

POSTGRES_SOCKET = ".s.PGSQL.5432"  # PostgreSQL's own name for the socket of its default port
VALKEY_SOCKET = "valkey.sock"
MAX_SOCKET_BYTES = 99
# Characters that need no quotes in a URL, in postgresql.conf and on a command line.
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")

_RECORD = "embedded.json"
_ACCOUNTS = ("nobody", "daemon")
_HOMES = (Path("/home"), Path("/root"))
_ROOT_PARENTS = (Path("/var/lib/hull-pipedrive"), Path("/var/tmp/hull-pipedrive"))  # noqa: S108  # made 0711, as root


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account of this machine."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """The folders of one DATA_DIR. `account` runs the servers, None for the caller's own."""

    data_dir: Path
    servers: Path
    sockets: Path
    account: Account | None

    @property
    def postgres_socket(self) -> Path:
        return self.sockets / POSTGRES_SOCKET

    @property
    def valkey_socket(self) -> Path:
        return self.sockets / VALKEY_SOCKET

    def log(self, name: str) -> Path:
        return self.data_dir / "log" / f"{name}.log"

    def make_for_server(self, name: str) -> Path:
        """Make a folder that only the servers' account may enter; one that exists is left as it is."""
        path = self.servers / name
        if not path.exists():
            path.mkdir(mode=0o700)
            give_to(path, self.account)
        return path


def give_to(path: Path, account: Account | None) -> None:
    """Give a new folder to the servers' account."""
    if account:
        os.chown(path, account.uid, account.gid)


def require_space(folder: Path, megabytes: int, what: str) -> None:
    """Check the free space.

    Raises: EmbeddedError with the free and the needed megabytes.
    """
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < megabytes:
        raise failed(f"No space left for {what}: {folder} has {free} MB free, {megabytes} are needed.")


def require_data_dir(data_dir: Path) -> None:
    """Make DATA_DIR if it is missing. Raises: EmbeddedError when it cannot be made or written."""
    try:
        make_data_dir(data_dir)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise failed(
            f"The embedded servers' folder cannot be made or written: DATA_DIR={data_dir}", str(error)
        ) from error


def place(data_dir: Path) -> Folders:
    """Find or make the folders; call it under the servers' lock only.

    Raises: EmbeddedError when they cannot be made.
    """
    try:
        return _place(data_dir, _servers_account())
    except OSError as error:
        raise failed(f"The embedded servers' folders cannot be made for DATA_DIR={data_dir}:", str(error)) from error


def _place(data_dir: Path, account: Account | None) -> Folders:
    (data_dir / "log").mkdir(mode=0o700, exist_ok=True)
    known = _read(data_dir)
    servers = known.get("servers")
    if servers is None or not servers.exists():
        servers = _make_servers(data_dir, account)
    sockets = known.get("sockets")
    if sockets is None or not _usable(sockets, account):
        sockets = _make_sockets(servers, account)
    if known != {"servers": servers, "sockets": sockets}:
        _write(data_dir, {"servers": str(servers), "sockets": str(sockets)})
    return Folders(data_dir=data_dir, servers=servers, sockets=sockets, account=account)


def find(data_dir: Path) -> Folders | None:
    """Return the existing folders, or None."""
    known = _read(data_dir)
    if not known:
        return None
    return Folders(data_dir=data_dir, servers=known["servers"], sockets=known["sockets"], account=_servers_account())


def _read(data_dir: Path) -> dict[str, Path]:
    try:
        content = json.loads((data_dir / _RECORD).read_text())
    except FileNotFoundError:
        return {}
    return {name: Path(content[name]) for name in ("servers", "sockets")}


def forget(data_dir: Path) -> None:
    """Forget the folders, which the caller has deleted."""
    (data_dir / _RECORD).unlink(missing_ok=True)


def _write(data_dir: Path, content: dict[str, str]) -> None:
    draft = data_dir / f"{_RECORD}.new"
    draft.write_text(json.dumps(content, indent=2) + "\n")
    draft.replace(data_dir / _RECORD)


def _servers_account() -> Account | None:
    """Return the account under which root runs the servers, None for an ordinary caller."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and this machine has none of the accounts {', '.join(_ACCOUNTS)}.\n"
        "  Next step: run as an ordinary account, or set DATABASE_URL and REDIS_URL to servers of your own."
    )


def _make_servers(data_dir: Path, account: Account | None) -> Path:
    if account is None:
        own = data_dir / "servers"
        own.mkdir(mode=0o700, exist_ok=True)
        return own
    if _is_reachable(data_dir) and not _in_a_home(data_dir):
        own = data_dir / "servers"
    else:
        own = Path(tempfile.mkdtemp(prefix="servers-", dir=_root_parent()))
    own.mkdir(exist_ok=True)
    own.chmod(0o711)
    return own


def _root_parent() -> Path:
    for parent in _ROOT_PARENTS:
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if parent.stat().st_uid == 0 and _is_reachable(parent):
            return parent
    raise EmbeddedError(
        f"Root needs a folder for the embedded servers that an unprivileged account reaches; neither DATA_DIR nor "
        f"{' nor '.join(map(str, _ROOT_PARENTS))} is one.\n"
        "  Next step: set DATA_DIR to a folder outside any home, with parents that all accounts may pass through."
    )


def _is_reachable(path: Path) -> bool:
    """Return whether any account may pass through this folder and all above it."""
    real = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (real, *real.parents))


def _in_a_home(path: Path) -> bool:
    homes = {*_HOMES, home_of_account()} - {Path("/")}
    return any(path.resolve().is_relative_to(home) for home in homes)


def _make_sockets(servers: Path, account: Account | None) -> Path:
    if _fits(servers / "run"):
        sockets = servers / "run"
        sockets.mkdir(mode=0o700, exist_ok=True)
    else:
        parents = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108  # mkdtemp makes a folder of our own in it
        parent = next((parent for parent in parents if _fits(parent / "hull-pipedrive-12345678")), parents[-1])
        sockets = Path(tempfile.mkdtemp(prefix="hull-pipedrive-", dir=parent))
    give_to(sockets, account)
    return sockets


def _fits(sockets: Path) -> bool:
    longest = max(len(os.fsencode(sockets / name)) for name in (POSTGRES_SOCKET, VALKEY_SOCKET))
    return longest <= MAX_SOCKET_BYTES and _PLAIN.fullmatch(str(sockets)) is not None


def _usable(sockets: Path, account: Account | None) -> bool:
    """Return whether the folder for sockets still exists and is ours (/tmp is emptied at boot)."""
    try:
        found = sockets.lstat()
    except OSError:
        return False
    owner = account.uid if account else os.geteuid()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner
