"""Pipedrive stalls the reads of some records: how soon do other edits reach Hull, and do the ticks continue?

    python -m benchmarks.stalled_remote [--processes 4] [--stalled 12] [--edits 10] [--limit-s 2] [--json]

The processes are those of `make up` without Flower. Two connectors belong to the company with stalled reads, a third one to
another company. Measured without and during a stall: the time from an edit in Pipedrive to Hull (its webhook is complete, so it
needs no read), and the time from a change that must be read for the third connector to Hull. Exit 1 if one takes too long during
the stall, if ticks pause, or if stalled records are not synchronized after it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import requests

from benchmarks import drill, sink
from benchmarks.load import Outcome
from benchmarks.stage import Stage, settings_document, stage
from benchmarks.webhook_intake import fetch, processes
from sandbox import serve

OTHER_COMPANY = 2
THREADS = 256
"""Parallel calls of the sandbox: stalled ones must not keep it from answering others."""
STALL_S = 3_600.0
NO_FETCHES = {"incremental_minutes": 0, "full_fetch_cron": ""}
TICK_S = 12.0
"""A sweep is stored every five seconds and runs every two; after a longer pause the ticks have stopped."""
PACE_S = 0.7
PATIENCE_S = 180.0
POLL_S = 0.05


@dataclass(slots=True)
class Ticks:
    """Watches the last sweep. longest_s  the longest time without one, by the database's clock"""

    longest_s: float = 0.0
    _ended: Event = field(default_factory=Event)

    def run(self) -> None:
        while not self._ended.wait(0.5):
            age_s = drill.scalar("SELECT extract(epoch FROM now() - at) FROM heartbeats WHERE name = 'sweep'")
            self.longest_s = max(self.longest_s, float(age_s))

    def end(self) -> None:
        self._ended.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connectors:
    """Keys of the connectors.

    first, second  of the company with stalled reads; the first has webhooks
    other          of another company
    """

    first: int
    second: int
    other: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4, help="processes for live batches")
    parser.add_argument(
        "--stalled", type=int, default=12, help="records with stalled reads, each in a batch of its own"
    )
    parser.add_argument("--edits", type=int, default=10, help="of other records, for each kind of edit")
    parser.add_argument("--limit-s", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    from pipeline.local import programs

    programs.LIVE_PROCESSES = chosen.processes
    port = serve.free_port()
    persons = 2 * (chosen.stalled + 4 * chosen.edits)
    own = {"PUBLIC_URL": f"http://127.0.0.1:{port}", "PORT": str(port)}
    with (
        stage(
            persons=persons,
            organizations=0,
            hull=sink.FACTORY,
            worker_processes=1,
            pipedrive_threads=THREADS,
            environment=own,
        ) as running,
        processes(running),
    ):
        test = _begin(running, chosen.stalled, chosen.edits)
        phases = {"without a stall": test.measure("calm", test.ids[chosen.stalled :])}
        test.stall()
        phases["during a stall"] = test.measure("stalled", test.ids[chosen.stalled + 2 * chosen.edits :])
        after = test.end_stall()
    during = phases["during a stall"]
    slowest_s = max(during["webhook_max_s"], during["other_company_max_s"])
    holds = (
        slowest_s <= chosen.limit_s and during["ticks_longest_s"] <= TICK_S and after["left"] == 0 == after["failures"]
    )
    if chosen.json:
        print(json.dumps({"processes": chosen.processes, "phases": phases, "after": after, "holds": holds}))
    else:
        for name, figures in {**phases, "after the stall": after}.items():
            drill.show(figures, name)
        print("other edits are synchronized" if holds else "OTHER EDITS ARE DELAYED")
    return 0 if holds else 1


@dataclass(frozen=True, slots=True)
class StallTest:
    running: Stage
    connectors: Connectors
    ids: list[int]
    stalled: int
    edits: int

    def measure(self, name: str, ids: list[int]) -> dict[str, float]:
        """Edit one Person after the other; return the seconds until each edit was in Hull."""
        ticks = Ticks()
        thread = Thread(target=ticks.run, daemon=True)
        thread.start()
        began: dict[str, dict[str, float]] = {"webhook": {}, "other": {}}
        for number in range(self.edits):
            edited, read = ids[2 * number : 2 * number + 2]
            mark = f"mark-{name}-{edited}"
            began["webhook"][mark] = time.time()
            _edit(self.running, edited, name=mark)
            time.sleep(PACE_S / 2)
            began["other"][_mark_of(read)] = time.time()
            _read(self.connectors.other, read)
            time.sleep(PACE_S / 2)
        arrived = self._wait({mark for marks in began.values() for mark in marks})
        ticks.end()
        thread.join(5)
        took = {
            kind: Outcome(waits_s=[arrived.get(mark, float("inf")) - at for mark, at in marks.items()])
            for kind, marks in began.items()
        }
        return {
            "webhook_p50_s": round(took["webhook"].quantile_ms(0.5) / 1000, 2),
            "webhook_max_s": round(took["webhook"].quantile_ms(1.0) / 1000, 2),
            "other_company_p50_s": round(took["other"].quantile_ms(0.5) / 1000, 2),
            "other_company_max_s": round(took["other"].quantile_ms(1.0) / 1000, 2),
            "ticks_longest_s": round(ticks.longest_s, 1),
        }

    def stall(self) -> None:
        """Stall Pipedrive's reads of the first Persons, and let both connectors of the company read them, batch by batch."""
        ids = "|".join(map(str, self.ids[: self.stalled]))
        fault = {"path": "/api/v2/persons", "query": rf"ids=(\d+%2C)*({ids})(%2C|&|$)", "kind": "slow", "count": None}
        drill.control(self.running.pipedrive_url, "faults", [fault | {"seconds": STALL_S}])
        for number, person_id in enumerate(self.ids[: self.stalled]):
            _read((self.connectors.first, self.connectors.second)[number % 2], person_id)
            time.sleep(0.1)
        time.sleep(1.0)

    def end_stall(self) -> dict[str, float]:
        """Let Pipedrive answer again, and wait until no work is left."""
        slots = drill.scalar("SELECT count(*) FROM batches WHERE state = 'running' AND slot IS NOT NULL")
        drill.control(self.running.pipedrive_url, "faults", [])
        ended = time.monotonic()
        while (left := drill.left_to_do()) and time.monotonic() - ended < PATIENCE_S:
            time.sleep(0.5)
        failures = "SELECT count(*) FROM failures WHERE state = 'open' AND kind <> 'field'"
        done_s = round(time.monotonic() - ended, 1)
        return {"slots_at_its_end": slots, "done_after_s": done_s, "left": left, "failures": drill.scalar(failures)}

    def _wait(self, marks: set[str]) -> dict[str, float]:
        ends_at, arrived = time.monotonic() + PATIENCE_S, dict[str, float]()
        while time.monotonic() < ends_at and not marks <= arrived.keys():
            time.sleep(POLL_S)
            arrived = requests.get(f"{self.running.hull_url}/__sandbox__/arrivals", timeout=30).json()
        return {mark: arrived[mark] for mark in marks & arrived.keys()}


def _begin(running: Stage, stalled: int, edits: int) -> StallTest:
    """Fetch everything for the first connector; then mark the Persons for the third one, in a field that only it maps."""
    from pipeline.settings import settings
    from pipeline.sync.connectors.webhooks import ensure_webhooks

    # Pipedrive stops sending webhooks to a process that does not answer
    drill.wait_for_url(f"{settings().public_url}/healthz", PATIENCE_S)
    code = drill.custom_text_field(running)
    _without_fetches(running.connector_key, code)
    fetch(running)
    ids = [person["id"] for person in drill.export(running.pipedrive_url, "person") if not person.get("is_deleted")]
    for person_id in ids[stalled : stalled + 4 * edits]:
        _edit(running, person_id, custom_fields={code: _mark_of(person_id)})
    ensure_webhooks(running.connector_key)
    connectors = Connectors(
        first=running.connector_key,
        second=_join(running, "second", company_of=running.connector_key),
        other=_join(running, "other", company_of=None, incoming_user_attributes=[{"hull": "mark", "service": code}]),
    )
    return StallTest(running, connectors, ids, stalled, edits)


def _without_fetches(connector_key: int, unmapped: str) -> None:
    """Switch off the fetches of a connector, and remove a field from its mapping."""
    from db import connector as connectors
    from db.session import transaction

    with transaction() as session:
        now = connectors.settings_in_force(session, connector_key).document
        rows = [row for row in now["incoming_user_attributes"] if row["service"] != unmapped]
        changed = now | NO_FETCHES | {"incoming_user_attributes": rows}
        connectors.add_settings(session, connector_key, changed, author="benchmark")


def _mark_of(person_id: int) -> str:
    return f"mark-other-{person_id}"


def _join(running: Stage, name: str, *, company_of: int | None, **mapped: Any) -> int:
    """Add a connector to the same sandbox: of the company of another connector, or of a company of its own.

    Raises: LookupError when the stage's connector is gone.
    """
    from db import connector as connectors
    from db.session import transaction
    from pipeline.settings import settings
    from pipeline.vault import Vault

    credentials, vault = running.credentials, Vault(settings().secret_keys)
    with transaction() as session:
        company_id = OTHER_COMPANY if company_of is None else _company_id(running)
        if company_of is not None:
            connectors.get_connector(session, company_of).company_id = company_id
        added = connectors.Connector(
            id=f"{len(name):024x}",
            name=name,
            hull_organization=running.hull_url.removeprefix("http://"),
            company_id=company_id,
        )
        session.add(added)
        session.flush()
        secrets = {"hull_secret": credentials.hull_secret, "pipedrive_api_token": credentials.api_token}
        for secret, value in secrets.items():
            connectors.keep_credential(session, added.key, secret, vault.seal(added.key, secret, value))
        document = settings_document(running.pipedrive_url, credentials.api_token) | NO_FETCHES | mapped
        connectors.add_settings(session, added.key, document, author="benchmark")
        return added.key


def _company_id(running: Stage) -> int:
    """Return the id of the sandbox's company, as in its webhooks."""
    headers = {"x-api-token": running.credentials.api_token}
    answer = requests.get(f"{running.pipedrive_url}/api/v1/users/me", headers=headers, timeout=30)
    return int(answer.json()["data"]["company_id"])


def _edit(running: Stage, number: int, **fields: Any) -> None:
    body = {"entity": "person", "id": number, "fields": fields}
    drill.control(running.pipedrive_url, "edit", body)


def _read(connector_key: int, number: int) -> None:
    """Let a Person be read, as after a webhook that cannot be used."""
    from db import change_writer
    from db.session import after_commit, transaction
    from pipeline.tasks import canvases

    with transaction() as session:
        change_writer.write_changes(session, connector_key, "incoming", "person", [str(number)], cause="drill")
        after_commit(session, lambda: canvases.wake_control("dispatch"))


if __name__ == "__main__":
    sys.exit(main())
