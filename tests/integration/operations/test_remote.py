"""`--url`: the same command against a running installation, with the rights of its key."""

from __future__ import annotations

from pathlib import Path

from tests.command_line import Run
from tests.integration.operations.conftest import Installation
from tests.world import World


def test_a_command_says_the_same_here_and_there(world: World, run: Run, installation: Installation) -> None:
    assert world
    there = ("--url", installation.url, "--key-file", str(installation.key_file))

    for form in ((), ("--json",)):
        here = run("credentials", "show", "acme", *form)
        assert (here.code, here.out) == (0, run("credentials", "show", "acme", *there, *form).out)


def test_what_is_refused_there_is_said_here(world: World, run: Run, installation: Installation, tmp_path: Path) -> None:
    assert world
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


def test_a_key_is_needed_and_must_be_good(world: World, run: Run, installation: Installation, tmp_path: Path) -> None:
    assert world
    (tmp_path / "other.key").write_text("hpk_nobody")

    without = run("credentials", "show", "acme", "--url", installation.url)
    wrong = run("credentials", "show", "acme", "--url", installation.url, "--key-file", str(tmp_path / "other.key"))

    assert (without.code, "--key-file" in without.err) == (2, True)
    assert (wrong.code, "hpk_nobody" in wrong.err) == (1, False)
    assert "Make a key under your account" in wrong.err


def test_an_installation_that_does_not_answer_is_explained(run: Run, tmp_path: Path) -> None:
    (tmp_path / "api.key").write_text("hpk_nobody")

    said = run("credentials", "show", "acme", "--url", "http://127.0.0.1:1", "--key-file", str(tmp_path / "api.key"))

    assert said.code == 1
    assert "http://127.0.0.1:1/api/v1 does not answer" in said.err
