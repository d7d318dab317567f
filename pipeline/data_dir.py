"""DATA_DIR: where it is by default, how it is made, and the small files that are kept in it.

Nothing depends on it where all servers and keys are named by the environment.
"""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parent.parent  # a clone, or the folder that the package is installed in
KEY_FILE = "secret.key"  # the key that encrypts credentials when SECRET_KEYS is not given
SANDBOX_FILE = "sandbox.json"  # where the sandbox of a running `pipeline up` listens, with its credentials


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return `.data` next to the code in a clone; for an installed package the user's data folder (XDG)."""
    if (PROJECT_DIR / "setup.cfg").exists():
        return PROJECT_DIR / ".data"
    xdg = environ.get("XDG_DATA_HOME", "")
    home = Path(environ.get("HOME") or home_of_account())
    return (Path(xdg) if xdg.startswith("/") else home / ".local" / "share") / "hull-pipedrive"


def make_data_dir(path: Path) -> None:
    """Make DATA_DIR if it is missing, closed to other accounts; a folder that exists keeps its mode.

    Made by root it may be passed through, not read: the account that the embedded servers run under must reach its
    own folder inside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def unwritable(data_dir: Path, error: OSError) -> str:
    """Return one line: why nothing can be kept in DATA_DIR, and what to do."""
    reason = error.strerror or type(error).__name__
    return (
        f"DATA_DIR={data_dir} cannot be used ({reason}); set DATA_DIR to a folder that this account may make and write"
    )


def write_once(path: Path, content: bytes) -> None:
    """Write a file that only this account may read; of several processes the first wins, and none reads half a file."""
    descriptor, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # made with mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # what is encrypted with a lost key is lost
    with suppress(FileExistsError):
        os.link(draft, path)
    os.unlink(draft)


def home_of_account() -> Path:
    """Return the home that the machine knows; containers often run as an account that it does not know."""
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/nonexistent")  # as Debian calls the home of an account without one
