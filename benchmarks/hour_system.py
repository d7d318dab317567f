"""The processes of the simulated hour: those of `make up`, a proxy that can be closed, and the actions on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from benchmarks.hour_witness import Witness
from benchmarks.stage import Stage

TIMEOUT_S = 60
POLL_S = 0.5
QUIET_LOOKS = 6
PLANTED = 10

BUSY = """
    SELECT (SELECT count(*) FROM changes) + (SELECT count(*) FROM deliveries WHERE state = 'new')
         + (SELECT count(*) FROM batches WHERE state IN ('ready', 'running', 'waiting'))
         + (SELECT count(*) FROM runs WHERE state = 'running')
         + (SELECT count(*) FROM id_mappings WHERE resolve_at IS NOT NULL AND hull_id IS NULL AND state = 'full') AS busy"""
GAPS = """
    SELECT entity, count(*) AS reports, sum(split_part(detail, ' ', 1)::bigint) AS records FROM sync_events
     WHERE reason = 'gap_repaired' AND at >= to_timestamp(:since) AND at <= to_timestamp(:until) GROUP BY entity"""


@dataclass(slots=True)
class HourSystem:
    stage: Stage
    public_url: str
    web: Any
    patience_s: float

    def pipedrive(self, control: str, body: dict[str, Any] | None = None) -> Any:
        """Turn one of the sandbox's controls, or with no body look at it."""
        url = f"{self.stage.pipedrive_url}/__sandbox__/{control}"
        answer = (
            requests.get(url, timeout=TIMEOUT_S) if body is None else requests.post(url, json=body, timeout=TIMEOUT_S)
        )
        answer.raise_for_status()
        return answer.json().get("data")

    def support_departures(self) -> None:
        """Deletions are to show in Hull."""
        from db import connector as connectors
        from db.session import transaction

        with transaction() as session:
            now = connectors.settings_in_force(session, self.stage.connector_key).document
            more = {"support_user_deletion": True, "support_account_deletion": True}
            connectors.add_settings(session, self.stage.connector_key, now | more, author="benchmark")

    def authorise(self) -> None:
        """Go the way a person's browser goes: our button, Pipedrive's page, and back."""
        who = self.stage.credentials
        vouched = {
            "ship": who.hull_connector_id,
            "organization": self.stage.hull_url.removeprefix("http://"),
            "secret": who.hull_secret,
        }
        begun = requests.get(
            f"{self.public_url}/auth/pipedrive", params=vouched, timeout=TIMEOUT_S, allow_redirects=False
        )
        page = begun.headers["Location"] + "&decision=allow"
        back = requests.get(page, timeout=TIMEOUT_S, allow_redirects=False).headers["Location"]
        requests.get(back, timeout=TIMEOUT_S).raise_for_status()

    def fetch_all(self) -> None:
        """What comes every night, to its end."""
        from pipeline.domain.kinds import Entity
        from pipeline.sync.runs.runs import RunInProgress, start_run

        for entity in Entity:
            try:
                start_run(self.stage.connector_key, entity, cause="benchmark", changed_only=True)
            except RunInProgress:
                continue
        self.settle()

    def schedule(self, interval_s: float) -> None:
        """Have an incremental fetch begin every so many seconds."""
        from datetime import UTC, datetime

        from db import schedule
        from db.session import transaction

        with transaction() as session:
            schedule.set_schedule(
                session,
                self.stage.connector_key,
                "incremental",
                interval_s=max(1, round(interval_s)),
                next_run_at=datetime.now(UTC),
            )

    def tick(self, name: str) -> None:
        """Wake a control task, as beat would."""
        from pipeline.tasks.app import app

        app.send_task(f"control.{name}")

    def trouble(self, seed: int, retry_after_s: tuple[float, ...], ban_s: float, delay_s: float, speed: float) -> None:
        """Lose, double and shuffle webhooks; what Pipedrive waits for is hurried."""
        shares = {"seed": seed, "lost": 0.1, "duplicated": 0.1, "delayed": 1.0, "delay_s": delay_s / speed}
        rules = {"retry_after_s": [each / speed for each in retry_after_s], "ban_s": ban_s / speed}
        self.pipedrive("deliveries", {"trouble": shares, "rules": rules})

    def calm(self) -> None:
        """Nothing goes wrong any more on the way."""
        self.pipedrive("deliveries", {"trouble": {}})

    def wait(self, seconds: float, checks_s: float) -> None:
        """Let time pass, and look at the webhooks now and then."""
        until, due = time.monotonic() + seconds, time.monotonic() + checks_s
        while time.monotonic() < until:
            time.sleep(min(POLL_S, max(0.0, until - time.monotonic())))
            self.tick("start_scheduled")
            if time.monotonic() >= due:
                self.tick("ensure_webhooks")
                due += checks_s

    def close_door(self) -> None:
        self.web.stop()

    def open_door(self) -> None:
        self.web = _open_door(self.public_url)

    def settle(self) -> None:
        """Return once nothing is left to do. Raises: TimeoutError."""
        until, quiet = time.monotonic() + self.patience_s, 0
        while quiet < QUIET_LOOKS:
            if time.monotonic() > until:
                raise TimeoutError(f"still at work: {_ask(BUSY)[0].busy}")
            self.tick("resolve_hull_ids")
            time.sleep(POLL_S)
            idle = _ask(BUSY)[0].busy == 0 and self.pipedrive("deliveries")["waiting"] == 0
            quiet = quiet + 1 if idle else 0

    def verify(self, *, repair: bool = False) -> dict[str, Any]:
        """`pipeline verify`: (entity, id) of everything it found, and what it set apart."""
        command = [sys.executable, "-m", "pipeline", "verify", "bench", "--json", *(["--repair"] if repair else [])]
        answer = subprocess.run(command, capture_output=True, check=False, timeout=self.patience_s)
        said = json.loads(answer.stdout)
        parts = said["entities"].items()
        return {
            "findings": [(entity, each["pipedrive_id"]) for entity, part in parts for each in part["findings"]],
            "compared": {entity: part["compared"] for entity, part in parts},
            "pending": {entity: part["pending"] for entity, part in parts},
            "failed": {entity: part["failed"] for entity, part in parts},
            "tokens": said["tokens"],
        }

    def plant(self, witness: Witness) -> list[tuple[str, int]]:
        """Ten Persons that are wrong: seven in Hull, three in the id map; (entity, id)."""
        held, strange = witness.held()["person"], witness.strange["person"]
        chosen = [number for number in witness.untouched if number in held and number not in strange][:PLANTED]
        for at, number in enumerate(chosen[:7]):
            wrong = {"pipedrive/name": "Somebody else"} if at < 4 else {"pipedrive/owner_id": 1}
            url = f"{self.stage.hull_url}/__sandbox__/users/{held[number]['id']}"
            requests.post(url, json=wrong, timeout=TIMEOUT_S).raise_for_status()
        _do("DELETE FROM id_mappings WHERE entity = 'person' AND pipedrive_id = ANY(:ids)", ids=chosen[7:])
        return [("person", number) for number in chosen]

    def gap_reports(self) -> dict[str, dict[str, int]]:
        return self.gaps_between(0.0, time.time())

    def gaps_between(self, since: float, until: float) -> dict[str, dict[str, int]]:
        """Entity → reports of gaps, and the records they name."""
        rows = _ask(GAPS, since=since, until=until)
        return {row.entity: {"reports": row.reports, "records": int(row.records)} for row in rows}

    def tokens(self) -> int:
        answer = requests.get(f"{self.stage.pipedrive_url}/__sandbox__/stats", timeout=TIMEOUT_S).json()
        return int(answer["tokens_total"])

    def healed(self) -> int:
        return int(_ask("SELECT coalesce(sum(healed), 0) AS healed FROM webhook_subscriptions")[0].healed)


@contextmanager
def processes(stage: Stage, patience_s: float) -> Iterator[HourSystem]:
    """The processes of `make up` instead of the stage's worker; Flower left out."""
    from pipeline.local import programs
    from pipeline.local.children import Children
    from pipeline.settings import settings

    os.killpg(stage.roots["workers"], signal.SIGKILL)
    children = Children(_tell)
    home = HourSystem(stage, settings().public_url, None, patience_s)
    try:
        for program in programs.pipeline_programs(settings(), host=programs.LOOPBACK, flower_login=""):
            if program.name not in ("web", "flower"):
                children.start(program)
        home.open_door()
        yield home
    finally:
        if home.web is not None:
            home.web.stop()
        children.stop()


def _open_door(public_url: str) -> Any:
    """Start the web process, and return once it answers."""
    from pipeline.local import programs
    from pipeline.local.children import Children
    from pipeline.settings import settings

    web = Children(_tell)
    web.start(
        next(
            each
            for each in programs.pipeline_programs(settings(), host=programs.LOOPBACK, flower_login="")
            if each.name == "web"
        )
    )
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        try:
            requests.get(public_url, timeout=TIMEOUT_S)
        except requests.ConnectionError:
            time.sleep(POLL_S)
        else:
            return web
    web.stop()
    raise TimeoutError("the web process does not answer")


def _tell(name: str, line: str) -> None:
    if name == "up":
        print(line, file=sys.stderr)


def _ask(query: str, **values: Any) -> list[Any]:
    from sqlalchemy import text

    from db.session import transaction

    with transaction() as session:
        return list(session.execute(text(query), values).all())


def _do(statement: str, **values: Any) -> None:
    from sqlalchemy import text

    from db.session import transaction

    with transaction() as session:
        session.execute(text(statement), values)
