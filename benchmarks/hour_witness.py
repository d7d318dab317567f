"""The witness of the simulated hour: it reads only the two remote systems, and finds wrong watermarks and differences."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import requests

from benchmarks import drill
from benchmarks.stage import Stage, settings_document
from tests.oracle import Journal, joined

POLL_S = 1.0
TIMEOUT_S = 300
CUSTOM_TYPES = ("varchar", "text", "double")
JUDGED = {
    "person": ("name", "email", "phone", "owner_id", "visible_to"),
    "organization": ("name", "owner_id", "visible_to"),
}
"""Fields with the same value in Hull and in Pipedrive; `verify` compares all twenty."""

EXCEPTED = """
    SELECT record_id FROM failures WHERE direction = 'incoming' AND entity = :entity AND state = 'open' AND kind = 'record'
    UNION SELECT record_id FROM changes WHERE direction = 'incoming' AND entity = :entity
       AND cause IN ('same_second', 'stale_overwrite', 'missing')"""
MARKS = (
    "SELECT entity, reached_at, excepted FROM watermarks WHERE complete_since IS NOT NULL AND reached_at IS NOT NULL"
)


@dataclass(slots=True)
class Witness:
    """Reads and compares; `watch` does so in a thread whenever a watermark has moved.

    strange  entity → ids that differed from the start: values that Hull cannot store unchanged
    claims   number of checked watermarks, by entity
    false    (entity, moment, ids) of the wrong watermarks
    """

    stage: Stage
    journal: Journal = field(init=False)
    strange: dict[str, set[int]] = field(default_factory=dict)
    claims: Counter[str] = field(default_factory=Counter)
    false: list[tuple[str, datetime, list[int]]] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    _read: int = 0
    _seen: set[tuple[str, datetime]] = field(default_factory=set)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.journal = Journal(fields=_judged_fields(self.stage))
        for entity in JUDGED:
            for record in drill.export(self.stage.pipedrive_url, entity):
                self.journal.add(entity, record["id"], 0.0, record)

    def held(self) -> dict[str, dict[int, Any]]:
        """Return Hull's records now; afterwards the journal has every change that may be in them."""
        found = joined(drill.export(self.stage.hull_url, "user"), drill.export(self.stage.hull_url, "account"))
        for line in drill.lines(f"{self.stage.pipedrive_url}/__sandbox__/journal?after={self._read}"):
            self.journal.add(line["entity"], line["id"], line["moment"], line["state"])
            self._read += 1
        return found

    def unlike(self, moment: float) -> dict[str, set[int]]:
        """Return entity → ids with values in Hull that Pipedrive has not had since a moment, without strange ones."""
        with self._lock:
            held = self.held()
            return {
                entity: set(self.journal.outdated(entity, held[entity], moment)) - self.strange.get(entity, set())
                for entity in JUDGED
            }

    def on_one_side(self) -> dict[str, set[int]]:
        """Return entity → ids that only Pipedrive or only Hull has."""
        with self._lock:
            held = self.held()
            return {entity: self.journal.existing(entity) ^ set(held[entity]) for entity in JUDGED}

    @property
    def untouched(self) -> list[int]:
        """Return Persons that were not changed."""
        states = self.journal.states.items()
        return [number for (kind, number), each in states if kind == "person" and len(each) == 1]

    def watch(self) -> threading.Thread:
        """Start watching; `stop` ends it."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_S):
            try:
                self._look()
            except Exception as trouble:  # noqa: BLE001 - errors of the witness are counted and shown at the end
                self.troubles[type(trouble).__name__] += 1

    def _look(self) -> None:
        for row in drill.rows(MARKS):
            if (row.entity, row.reached_at) in self._seen:
                continue
            excepted = {int(each.record_id) for each in drill.rows(EXCEPTED, entity=row.entity)}
            unlike = self.unlike(row.reached_at.timestamp())[row.entity]
            self._seen.add((row.entity, row.reached_at))
            self.claims[row.entity] += 1
            if unlike - excepted or len(unlike & excepted) > row.excepted:
                self.false.append((row.entity, row.reached_at, sorted(unlike)))


def _judged_fields(stage: Stage) -> dict[str, tuple[str, ...]]:
    """Return the compared system fields, and the mapped custom fields of plain types."""
    document = settings_document(stage.pipedrive_url, stage.credentials.api_token)
    mapped = {"person": document["incoming_user_attributes"], "organization": document["incoming_account_attributes"]}
    return {entity: (*JUDGED[entity], *_plain_fields(stage, entity, mapped[entity])) for entity in JUDGED}


def _plain_fields(stage: Stage, entity: str, rows: list[dict[str, str]]) -> list[str]:
    answer = requests.get(
        f"{stage.pipedrive_url}/api/v2/{entity}Fields?limit=500",
        headers={"x-api-token": stage.credentials.api_token},
        timeout=TIMEOUT_S,
    )
    kinds = {each["field_code"]: each["field_type"] for each in answer.json()["data"] if each["is_custom_field"]}
    return [row["service"] for row in rows if kinds.get(row["service"]) in CUSTOM_TYPES]
