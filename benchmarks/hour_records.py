"""Explain a record that differs after the simulated hour: its past in Pipedrive, Hull's values, and the pipeline's rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from benchmarks import drill
from benchmarks.hour_witness import Witness

LAST = 6
"""Number of states and of events that are shown for each record."""

MAPPINGS = """
    SELECT pipedrive_id, state, hull_id, version, merged_into, digest = '' AS in_doubt, resolve_at IS NOT NULL AS asked
      FROM id_mappings WHERE entity = :entity AND (pipedrive_id = :id OR hull_id IN
           (SELECT hull_id FROM id_mappings WHERE entity = :entity AND pipedrive_id = :id))"""
CLAIMS = """
    SELECT i.kind AS claim, i.pipedrive_id AS holder, m.state FROM identifiers i
      LEFT JOIN id_mappings m ON m.entity = i.entity AND m.pipedrive_id = i.pipedrive_id
     WHERE i.role = 'holder' AND i.entity = :entity AND (i.pipedrive_id = :id OR i.value = ANY(:vals))"""
EVENTS = """
    SELECT at, event, reason, cause, detail FROM sync_events WHERE entity = :entity AND pipedrive_id = :id
     ORDER BY id DESC LIMIT :last"""
CHANGES = "SELECT cause, revision, attempts FROM changes WHERE entity = :entity AND record_id = CAST(:id AS text)"


def explain(witness: Witness, named: dict[str, set[int]], limit: int = 20) -> list[dict[str, Any]]:
    """Return one entry for each of the first `limit` records of either entity."""
    held = witness.held()
    return [
        _explained(witness, held, entity, number) for entity, ids in named.items() for number in sorted(ids)[:limit]
    ]


def _explained(witness: Witness, held: dict[str, dict[int, Any]], entity: str, number: int) -> dict[str, Any]:
    states = witness.journal.states[entity, number]
    shown = held[entity].get(number)
    last = states[-1][1] if states else None
    scope = {"entity": entity, "id": number}
    return {
        "entity": entity,
        "id": number,
        "unlike": _unlike(witness, entity, shown, last),
        "organization": None
        if last is None
        else witness.journal.current("organization", last.get("org_id") or 0).get("id"),
        "past": [_state(began, state) for began, state in states[-LAST:]],
        "hull": None if shown is None else {name: shown.get(name) for name in ("id", "anonymous_ids", "organization")},
        "mappings": [row._asdict() for row in drill.rows(MAPPINGS, **scope)],
        "claims": [row._asdict() for row in drill.rows(CLAIMS, **scope, vals=_values(shown))],
        "changes": [row._asdict() for row in drill.rows(CHANGES, **scope)],
        "events": [
            f"{row.at:%H:%M:%S.%f} {row.event} {row.reason} {row.cause} {row.detail or ''}"
            for row in drill.rows(EVENTS, **scope, last=LAST)
        ],
    }


def _unlike(witness: Witness, entity: str, shown: Any, last: Any) -> dict[str, Any]:
    """Return field → Pipedrive's value and Hull's value."""
    if shown is None or last is None:
        return {"alive": last is not None, "in_hull": shown is not None}
    return witness.journal.differences(entity, shown, last)


def _state(began: float, state: Any) -> str:
    moment = f"{datetime.fromtimestamp(began, UTC):%H:%M:%S.%f}"
    if state is None:
        return f"{moment} gone"
    return f"{moment} {state.get('update_time')} org {state.get('org_id')} {state.get('name')}"


def _values(shown: Any) -> list[str]:
    return [shown[name] for name in ("email", "domain") if shown is not None and shown.get(name)]
