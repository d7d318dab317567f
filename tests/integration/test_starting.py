"""Programs that are not ours start our processes: what is missing is one message and exit code 1, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "worker": ["celery", "-A", "pipeline", "worker"],
    "beat": ["celery", "-A", "pipeline", "beat"],
    "flower": ["celery", "-A", "pipeline", "flower"],
    "web": ["granian", "--interface", "rsgi", "--factory", "pipeline.web.app:create_server", "--port", "0"],
}
CASES = {
    "keys": (
        {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "BROKER_URL": "redis://127.0.0.1:1/0"},
        "SECRET_KEYS is missing",
    ),
    "folder": ({"DATA_DIR": "/proc/no/folder"}, "set DATA_DIR to a folder"),
}


@pytest.mark.parametrize(
    ("program", "case"),
    [
        ("worker", "keys"),
        ("web", "keys"),
        ("worker", "folder"),
        ("beat", "folder"),
        ("flower", "folder"),
        ("web", "folder"),
    ],
)
def test_missing_settings_are_named_without_a_traceback(program: str, case: str, tmp_path: Path) -> None:
    given, expected = CASES[case]
    done = subprocess.run(
        [sys.executable, "-P", "-m", *PROGRAMS[program]],
        cwd=tmp_path,
        env={"PATH": os.defpath, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert expected in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []
