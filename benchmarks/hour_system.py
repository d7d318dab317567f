"""The processes of the simulated hour, which are those of `make up`, and the actions on them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from benchmarks import drill
from benchmarks.hour_witness import Witness
from benchmarks.stage import Stage
from pipeline.local.interrupts import Interrupts

TIMEOUT_S = 60
POLL_S = 0.5
QUIET_LOOKS = 6
PLANTED = 10

UNRESOLVED = "SELECT count(*) FROM id_mappings WHERE resolve_at IS NOT NULL AND hull_id IS NULL AND state = 'full'"
GAPS = """
    SELECT entity, count(*) AS reports, sum(split_part(detail, ' ', 1)::bigint) AS records FROM sync_events
     WHERE reason = 'gap_repaired' AND at >= to_timestamp(:since) AND at <= to_timestamp(:until) GROUP BY entity"""


@dataclass(slots=True)
class HourSystem:
    stage: Stage
    public_url: str
    web: Any
    patience_s: float
    interrupts: Interrupts

    def pipedrive(self, control: str, body: dict[str, Any] | None = None) -> Any:
        """Return what a control of the sandbox's Pipedrive shows, or set it to `body`."""
        return drill.control(self.stage.pipedrive_url, control, body).get("data")

    def mark_deletions(self) -> None:
        """Switch on support for deletions in Hull."""
        drill.change_settings(self.stage.connector_key, support_user_deletion=True, support_account_deletion=True)

    def authorize(self) -> None:
        """Authorize the app like a person's browser: our button, Pipedrive's page, and back."""
        who = self.stage.credentials
        credentials = {
            "ship": who.hull_connector_id,
            "organization": self.stage.hull_url.removeprefix("http://"),
            "secret": who.hull_secret,
        }
        with requests.Session() as browser:  # which keeps the cookie that the authorization is bound to
            begun = browser.get(
                f"{self.public_url}/auth/pipedrive", params=credentials, timeout=TIMEOUT_S, allow_redirects=False
            )
            page = begun.headers["Location"] + "&decision=allow"
            back = browser.get(page, timeout=TIMEOUT_S, allow_redirects=False).headers["Location"]
            browser.get(back, timeout=TIMEOUT_S).raise_for_status()

    def fetch_all(self) -> None:
        """Run the full fetch of every night to its end."""
        from pipeline.domain.kinds import Entity
        from pipeline.sync.runs.runs import RunInProgress, start_run

        for entity in Entity:
            try:
                start_run(self.stage.connector_key, entity, cause="benchmark", changed_only=True)
            except RunInProgress:
                continue
        self.wait_until_idle()

    def schedule(self, interval_s: float) -> None:
        """Schedule an incremental fetch with this interval."""
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
        """Start a control task, as beat does."""
        from pipeline.tasks.app import app

        app.send_task(f"control.{name}")

    def trouble(self, seed: int, retry_after_s: tuple[float, ...], ban_s: float, delay_s: float, speed: float) -> None:
        """Lose, double and reorder webhooks, and shorten Pipedrive's pauses."""
        shares = {"seed": seed, "lost": 0.1, "duplicated": 0.1, "delayed": 1.0, "delay_s": delay_s / speed}
        rules = {"retry_after_s": [each / speed for each in retry_after_s], "ban_s": ban_s / speed}
        self.pipedrive("deliveries", {"trouble": shares, "rules": rules})

    def stop_trouble(self) -> None:
        """Deliver all webhooks normally again."""
        self.pipedrive("deliveries", {"trouble": {}})

    def wait(self, seconds: float, checks_s: float) -> None:
        """Let time pass, with checks of the webhooks."""
        until, due = time.monotonic() + seconds, time.monotonic() + checks_s
        while time.monotonic() < until:
            self.interrupts.check()
            time.sleep(min(POLL_S, max(0.0, until - time.monotonic())))
            self.tick("start_scheduled")
            if time.monotonic() >= due:
                self.tick("ensure_webhooks")
                due += checks_s

    def stop_web(self) -> None:
        self.web.stop()

    def start_web(self) -> None:
        self.web = drill.new_children()
        drill.start_programs(self.web, lambda name: name == "web")
        drill.wait_for_url(self.public_url, TIMEOUT_S)

    def wait_until_idle(self) -> None:
        """Return when no work is left. Raises: TimeoutError."""
        until, quiet = time.monotonic() + self.patience_s, 0
        while quiet < QUIET_LOOKS:
            if time.monotonic() > until:
                raise TimeoutError(f"still at work: {drill.left_to_do(UNRESOLVED)} left")
            self.interrupts.check()
            self.tick("resolve_hull_ids")
            time.sleep(POLL_S)
            idle = drill.left_to_do(UNRESOLVED) == 0 and self.pipedrive("deliveries")["waiting"] == 0
            quiet = quiet + 1 if idle else 0

    def verify(self, *, repair: bool = False) -> dict[str, Any]:
        """Run `pipeline verify`; return (entity, id) of each finding, and the counts."""
        command = [sys.executable, "-m", "pipeline", "verify", "bench", "--json", *(["--repair"] if repair else [])]
        answer = subprocess.run(command, capture_output=True, check=False, timeout=self.patience_s)
        found = json.loads(answer.stdout)
        parts = found["entities"].items()
        return {
            "findings": [(entity, each["pipedrive_id"]) for entity, part in parts for each in part["findings"]],
            "compared": {entity: part["compared"] for entity, part in parts},
            "pending": {entity: part["pending"] for entity, part in parts},
            "failed": {entity: part["failed"] for entity, part in parts},
            "tokens": found["tokens"],
        }

    def plant(self, witness: Witness) -> list[tuple[str, int]]:
        """Make ten Persons wrong, seven in Hull and three in the id map; return (entity, id) of each."""
        held, strange = witness.held()["person"], witness.strange["person"]
        chosen = [number for number in witness.untouched if number in held and number not in strange][:PLANTED]
        for at, number in enumerate(chosen[:7]):
            wrong = {"pipedrive/name": "Another name"} if at < 4 else {"pipedrive/owner_id": 1}
            url = f"{self.stage.hull_url}/__sandbox__/users/{held[number]['id']}"
            requests.post(url, json=wrong, timeout=TIMEOUT_S).raise_for_status()
        drill.execute("DELETE FROM id_mappings WHERE entity = 'person' AND pipedrive_id = ANY(:ids)", ids=chosen[7:])
        return [("person", number) for number in chosen]

    def gap_reports(self) -> dict[str, dict[str, int]]:
        return self.gaps_between(0.0, time.time())

    def gaps_between(self, since: float, until: float) -> dict[str, dict[str, int]]:
        """Return entity → the number of gap reports, and the number of their records."""
        rows = drill.rows(GAPS, since=since, until=until)
        return {row.entity: {"reports": row.reports, "records": int(row.records)} for row in rows}

    def tokens(self) -> int:
        return int(drill.control(self.stage.pipedrive_url, "stats")["tokens_total"])

    def recreated(self) -> int:
        """Return how many webhooks were recreated."""
        return int(drill.scalar("SELECT coalesce(sum(recreated), 0) FROM webhook_subscriptions"))


@contextmanager
def processes(stage: Stage, patience_s: float, interrupts: Interrupts) -> Iterator[HourSystem]:
    """Run the processes of `make up` except Flower instead of the stage's worker."""
    from pipeline.settings import settings

    home = HourSystem(stage, settings().public_url, None, patience_s, interrupts)
    with drill.pipeline_processes(stage, lambda name: name not in ("web", "flower")):
        try:
            home.start_web()
            yield home
        finally:
            if home.web is not None:
                home.web.stop()
