"""Build the wheel and the sdist of this project away from its clone, so that nothing that lies about gets into them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PROJECT = Path(__file__).parents[2]
BUILD = "from setuptools import build_meta; import sys; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def tracked_files() -> list[Path]:
    """Return the paths of all files of the project, new ones that are not ignored included, relative to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - Git of this machine
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for path in map(Path, filter(None, listed.stdout.split("\0"))) if (PROJECT / path).exists()]


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from the unpacked sdist, as an installer without a wheel does.

    Returns (wheel, sdist), both in `folder`. Raises subprocess.CalledProcessError if the build fails.
    """
    clone, unpacked = folder / "clone", folder / "unpacked"
    for path in tracked_files():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / path, clone / path, follow_symlinks=False)
    sdist = folder / _build("build_sdist", clone, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return folder / _build("build_wheel", source, folder), sdist


def _build(hook: str, source: Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, hook, str(folder)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
    done.check_returncode()
    return done.stdout.splitlines()[-1]
