"""`--url`: the same command against a running installation, with the rights of its key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.domain.kinds import Entity
from tests.command_line import Run
from tests.integration.operations.conftest import Installation
from tests.system import SyncSystem


def test_a_command_has_the_same_answer_locally_and_remotely(
    system: SyncSystem, run: Run, installation: Installation
) -> None:
    assert system
    there = ("--url", installation.url, "--key-file", str(installation.key_file))

    for command in (("credentials", "show"), ("budget",), ("connectors", "schedules"), ("events", "list")):
        for form in ((), ("--json",)):
            here = run(*command, "acme", *form)
            assert (here.code, here.out) == (0, run(*command, "acme", *there, *form).out)


def test_events_of_a_remote_installation_are_followed_and_exported(
    system: SyncSystem, run: Run, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("--url", installation.url, "--key-file", str(installation.key_file))
    system.company.create_person(name="Ada")
    system.fetch(Entity.PERSON)

    def during_pause(_seconds: float) -> None:
        if len(system.rows("SELECT 1 FROM runs")) > 1:
            raise KeyboardInterrupt
        system.company.create_person(name="Ben")
        system.fetch(Entity.PERSON)

    monkeypatch.setattr("pipeline.cli.rendering_records.time.sleep", during_pause)
    followed = run("events", "list", "acme", "--event", "*.user.success", "--limit", "1", "--follow", "--json", *there)
    number = str(run("events", "export", "acme", "--format", "jsonl", "--json", *there).json["export"]["id"])
    system.run_jobs()
    files = [run("events", "download", "acme", number, "--output", "-", *form) for form in ((), there)]

    assert [json.loads(line)["pipedrive_id"] for line in followed.out.splitlines()] == [1, 2]
    assert files[0].out == files[1].out
    assert len(files[0].out.splitlines()) == len(system.rows("SELECT 1 FROM sync_events"))


def test_a_remote_refusal_is_shown(system: SyncSystem, run: Run, installation: Installation, tmp_path: Path) -> None:
    assert system
    there = ("--url", f"{installation.url}/", "--key-file", str(installation.key_file))
    (tmp_path / "wrong").write_text("canary-wrong")

    unknown = run("credentials", "show", "acne", *there)
    refused = run("credentials", "replace-api-token", "acme", "--secret-file", str(tmp_path / "wrong"), *there)

    assert (unknown.code, unknown.err) == (
        2,
        "Error: There is no connector 'acne'.\nNext:  Choose one of: acme.\n",
    )
    assert refused.code == 1
    assert "Pipedrive: unauthorized" in refused.err
    assert "canary-wrong" not in refused.err


def test_a_valid_key_is_required(system: SyncSystem, run: Run, installation: Installation, tmp_path: Path) -> None:
    assert system
    (tmp_path / "other.key").write_text("hpk_unknown")

    without = run("credentials", "show", "acme", "--url", installation.url)
    wrong = run("credentials", "show", "acme", "--url", installation.url, "--key-file", str(tmp_path / "other.key"))

    assert (without.code, "--key-file" in without.err) == (2, True)
    assert (wrong.code, "hpk_unknown" in wrong.err) == (1, False)
    assert "Create a key under your account" in wrong.err


@pytest.mark.parametrize(
    "content", ["hpk_abc…".encode(), b"", b"hpk_canary\nhpk_other\n", b"hpk_canary\xff", b"hpk canary", b"k" * 201]
)
def test_a_file_without_a_key_is_refused_before_anything_is_sent(run: Run, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "api.key"
    file.write_bytes(content)

    refused = run("credentials", "show", "acme", "--url", "http://127.0.0.1:1", "--key-file", str(file))

    assert refused.code == 2
    assert f"{file} does not hold an API key.\nNext:  Write the whole key into it" in refused.err
    assert "canary" not in refused.err


def test_a_key_is_read_from_standard_input(system: SyncSystem, run: Run, installation: Installation) -> None:
    assert system
    there = ("--url", installation.url, "--key-file", "-")

    assert run("credentials", "show", "acme", *there, text=installation.key_file.read_text()).code == 0
    assert "Standard input does not hold an API key" in run("credentials", "show", "acme", *there, text="").err


def test_an_entry_of_netrc_does_not_replace_the_key(
    system: SyncSystem, run: Run, installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert system
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ana password canary\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    result = run("credentials", "show", "acme", "--url", installation.url, "--key-file", str(installation.key_file))

    assert (result.code, result.err) == (0, "")


def test_an_installation_that_does_not_answer_is_explained(run: Run, tmp_path: Path) -> None:
    (tmp_path / "api.key").write_text("hpk_unknown")

    result = run("credentials", "show", "acme", "--url", "http://127.0.0.1:1", "--key-file", str(tmp_path / "api.key"))

    assert result.code == 1
    assert "http://127.0.0.1:1/api/v1 does not answer" in result.err
