"""`pipeline up` in a process of its own, and a real Chromium in front of its console."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.local import servers
from pipeline.local.example import Remotes
from pipeline.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
PROJECT = Path(__file__).parents[2]
NAME, PASSWORD = "ana@acme.example", "a canary in a coal mine"
SIZES = {"persons": 120, "organizations": 30, "users": 40, "accounts": 10}


@dataclass(frozen=True, slots=True)
class RunningPipeline:
    """A running pipeline, as `pipeline up --json` describes it."""

    announced: dict[str, Any]
    data_dir: Path
    environment: Mapping[str, str]
    people: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return str(self.announced["web_url"])

    @property
    def sandbox(self) -> dict[str, str]:
        """The sandbox's own words: where its two sides are, and their secrets."""
        words: dict[str, str] = json.loads(Path(self.announced["sandbox_file"]).read_text())
        return words

    def pipedrive(self, method: str, path: str, **body: Any) -> Any:
        """What a salesperson does in Pipedrive."""
        headers = {"x-api-token": self.sandbox["api_token"]}
        url = f"{self.sandbox['pipedrive_url']}{path}"
        answer = requests.request(method, url, headers=headers, json=body or None, timeout=20)
        answer.raise_for_status()
        return answer.json().get("data")

    @property
    def remotes(self) -> Remotes:
        """Both systems as people use them."""
        return Remotes(self.sandbox)

    def add_operator(self, name: str, role: str) -> None:
        """Add an operator of this role by the command line, once."""
        if name not in self.people:
            file = self.data_dir / "password"
            file.write_text(PASSWORD)
            self.command("operators", "add", name, "--role", role, "--password-file", str(file))
            self.people.add(name)

    def command(self, *words: str) -> Any:
        """A command of ours, with `--json`."""
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *words, "--json"],
            env=environment(self.data_dir, self.environment),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextmanager
def run_pipeline(
    *, has_example: bool = False, sizes: Mapping[str, int] = SIZES, **more: str
) -> Iterator[RunningPipeline]:
    """Everything, with a sandbox of a hundred Persons; stopped in the end. `more` is for the environment."""
    data_dir = Path(tempfile.mkdtemp(prefix="pipeline-browser-"))
    sizes = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    example = [] if has_example else ["--no-example"]
    with (data_dir / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "up", *sizes, *example, "--quiet", "--json"],
            env=environment(data_dir, more),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            printed = "".join(iter(process.stdout.readline, "}\n")) + "}"
            yield RunningPipeline(json.loads(printed), data_dir, more)
        finally:
            process.terminate()
            process.wait(timeout=60)
            if process.stdout:
                process.stdout.close()
            servers.remove(Settings.from_env({"DATA_DIR": str(data_dir)}))
            shutil.rmtree(data_dir, ignore_errors=True)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Debian's Chromium: a browser that playwright would download is not needed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


def log_in(page: Page, running: RunningPipeline, name: str, role: str) -> None:
    """Log in an operator of this role."""
    running.add_operator(name, role)
    page.goto("/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")


def environment(data_dir: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the names that change what is shown."""
    ours = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "PUBLIC_URL", "PORT", "FLOWER_PORT")
    return {name: value for name, value in os.environ.items() if name not in ours} | {"DATA_DIR": str(data_dir), **more}
