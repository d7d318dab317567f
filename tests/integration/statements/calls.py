"""One call of each function of `db/` that queries the database, with arguments that fit the rows of `rows`.

Most arguments are found by their name. `OWN` has the arguments of functions that need others.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

import db
from db import (
    alert,
    batch,
    change,
    change_writer,
    connector,
    deletion,
    event_log,
    failure,
    failure_filter,
    job,
    joining,
    login_attempt,
    outage,
    page,
    plan,
    record_events,
    run,
    sync_event,
    webhook,
)
from pipeline.domain.deletions import Deletion, DeletionEffect
from tests.integration.statements.rows import CONNECTOR

Call = Callable[[Session], object]

IDS: Final = [number * 397 % 99_000 + 1 for number in range(50)]
HULL_IDS: Final = [f"h{number}" for number in IDS]
EMAILS: Final = [f"p{number}@example.com" for number in IDS]
WANTED: Final = [("email", email, number) for email, number in zip(EMAILS, IDS, strict=True)]
RUN: Final = 100_001
BATCH: Final = 200_004
DAY_AGO: Final = datetime.now(UTC) - timedelta(days=1)
RECORD: Final = record_events.RecordIds(connector_key=CONNECTOR, entity="person", pipedrive_id=397, hull_id="h397")
FIELD_NAMES: Final = record_events.FieldNames(attribute=b"name", keys=[b"name"], codes=["name"])
FILTER: Final = failure_filter.FailureFilter(connector_key=CONNECTOR)

BY_NAME: Final[dict[str, Any]] = {
    "account_ids": [f"a{number}" for number in range(50)],
    "action": "did",
    "after": "1",
    "after_event": 1,
    "ascending": True,
    "asked": "pipedrive:397",
    "at": DAY_AGO,
    "author": "test",
    "batch_id": BATCH,
    "batch_ids": [BATCH, 397],
    "before": None,
    "before_id": 90_000,
    "began_at": DAY_AGO,
    "by": "test",
    "calm_s": 120.0,
    "cause": "webhook",
    "changed": IDS,
    "chosen": FILTER,
    "ciphertext": b"",
    "claim": "email",
    "company": "c1",
    "company_id": 1,
    "connector_id": "c1",
    "connector_key": CONNECTOR,
    "count": 20,
    "counted": [],
    "created_at": DAY_AGO,
    "cursor": None,
    "days": 30,
    "delivery_id": 397,
    "digest": b"digest",
    "direction": "incoming",
    "done": False,
    "entity": "person",
    "job_id": 10,
    "event": "outgoing.user.success",
    "event_id": 90_000,
    "events": 1_000,
    "export_id": 1,
    "failure_id": 395,
    "failure_ids": IDS,
    "failures": [],
    "first_s": 1.0,
    "found": dict(zip(IDS, HULL_IDS, strict=True)),
    "free": 3,
    "frontier": 1,
    "grace_s": 60.0,
    "survivors": {IDS[0]: IDS[1]},
    "held": {},
    "hours": 1,
    "hull_id": "h397",
    "hull_ids": HULL_IDS,
    "id_or_name": "c1",
    "ids": IDS,
    "in_flight": 30,
    "in_hull": True,
    "item_ids": IDS,
    "key": CONNECTOR,
    "key_id": 1,
    "kind": "status",
    "kinds": ["status"],
    "lease_s": 30.0,
    "left": {},
    "limit": 50,
    "lines": b"a line\n",
    "listed": IDS,
    "longest_s": 60.0,
    "marks": dict.fromkeys(IDS, ("processed", None)),
    "moment": DAY_AGO,
    "most": 1_000,
    "most_bytes": 1_000_000,
    "n": 1_000,
    "name": "o1",
    "names": ["person"],
    "operator_id": 1,
    "overlap_s": 60.0,
    "password_hash": "",
    "patience_s": 30.0,
    "pipedrive_id": 397,
    "pipedrive_ids": IDS,
    "plan_id": 1,
    "reason": "option_unknown",
    "reasons": ["option_unknown"],
    "record": "397",
    "record_id": "397",
    "record_ids": [str(number) for number in IDS],
    "records": 1,
    "replay_id": 1,
    "replay_ids": [1, 2],
    "reports": dict.fromkeys(HULL_IDS, (1, b"{}")),
    "rest_s": 3_600.0,
    "role": "admin",
    "rule": "rule50",
    "rules": ["rule50"],
    "run_id": RUN,
    "said": "h397",
    "sentence": "",
    "settings_version": 1,
    "side": "pipedrive",
    "since": DAY_AGO,
    "slice_id": RUN,
    "source": "pipedrive",
    "stage": "extract",
    "staged": b"",
    "started_at": DAY_AGO,
    "state": "open",
    "subject": "incoming:person:395",
    "subjects": [f"incoming:person:{number}" for number in IDS],
    "task_id": None,
    "told": [],
    "until": None,
    "user_id": 1,
    "version": 1,
    "wait_s": 1.0,
    "waits_for": ["option_unknown"],
    "wanted": WANTED,
    "why": "test",
    "within_s": 600.0,
}
"""Name of a parameter → its argument, unless `OWN` has another one."""

NOT_CALLED: Final = {
    "base.changed_rows": "executes what it is given",
    "change_writer.write_planned": "plan.send_items calls it",
    "connector.remove_rows_of": "a connector that was removed: every table, one after the other, by its key",
    "statement.copy_rows": "COPY has no plan",
    "id_mapping_writer.append_page": "COPY has no plan",
    "id_mapping_writer.merge_page": "page.write_page calls it",
    "session.after_commit": "executes nothing",
    "sync_event.make_partitions": "makes tables",
    "sync_event.detach_partition": "alters a table",
    "sync_event.drop_partition": "drops a table",
    "sync_event.limit_lock_wait": "a setting",
    "sync_event.log_events": "COPY has no plan",
}


def _batch(session: Session) -> batch.ClaimedBatch:
    session.execute(_CLAIMABLE, {"id": BATCH})
    claimed = batch.claim(session, BATCH, "extract", lease_s=30.0, task_id=None)
    assert claimed is not None
    return claimed


def _job(session: Session) -> job.ClaimedJob:
    claimed = job.claim(session, 10, lease_s=30.0)
    assert claimed is not None
    return claimed


_CLAIMABLE: Final = text("UPDATE batches SET state = 'ready', due_at = now() WHERE id = :id")

ROWS_BY_NAME: Final[dict[str, Call]] = {
    "alert": lambda session: session.get_one(alert.Alert, 50),
    "batch": _batch,
    "connector": lambda session: session.get_one(connector.Connector, CONNECTOR),
    "job": _job,
    "failure": lambda session: session.get_one(failure.Failure, 395),
    "plan": lambda session: session.get_one(plan.SettingsPlan, 1),
    "run": lambda session: session.get_one(run.Run, RUN),
}
"""Name of a parameter → the row it is given."""

CONTEXT: Final = page.PageContext(
    connector_key=CONNECTOR, entity="person", event="incoming.user.success", cause="fetch", matched_by="fetched", run_id=RUN,
    batch_id=BATCH, settings_version=1,
)  # fmt: skip
PAGE: Final = [
    page.PageRow(number, number - 1 + number % 3, f"{number}", b"{}", b"", None, b"{}", 1)
    for number in range(50_000, 50_500)
]
SUMMARIES: Final = [
    change_writer.DeliverySummary(
        delivery_id=number, entity="person", record_id=str(number), rank=1, is_usable=True, is_created=False
    )
    for number in IDS
]

NEWEST: Final = [
    webhook.Newest(
        connector_key=CONNECTOR,
        entity="person",
        pipedrive_id=number,
        sent_at_ms=1,
        version=1,
        is_deleted=False,
        delivery_id=number,
    )
    for number in sorted(IDS)
]


LIMIT: Final = login_attempt.Limit(free=5, decay_s=60, first_s=10, longest_s=60)
LIMITS: Final = [((b"n", b"p"), LIMIT), ((b"", b"p"), LIMIT)]
RESERVED: Final = login_attempt.ReservedAttempt(limits=LIMITS, at=datetime(2026, 11, 30, tzinfo=UTC))


def _remote_that_is_out(session: Session) -> str:
    outage.note_failure(session, CONNECTOR, "pipedrive", subject="batch 1", reason="remote_unavailable", detail="")
    return "pipedrive"


OWN: Final[dict[str, dict[str, Any]]] = {
    "alert.past_alerts": {"connector_keys": [1, 2]},
    "alert.record_sent": {"sink_states": {}, "error": None, "again_in_s": 60.0},
    "audit.note": {"operator": "a"},
    "authorisation.drop_state": {"digest": "digest"},
    "authorisation.finish_state": {"digest": "digest"},
    "authorisation.is_used": {"invitation": "digest", "browser": "digest"},
    "authorisation.keep_state": {"digest": "digest", "browser": "digest", "invitation": "digest"},
    "authorisation.release_state": {"digest": "digest"},
    "authorisation.claim_state": {"digest": "digest", "callback": "callback", "browser": "browser"},
    "authorisation.keep_sealed_grant": {"digest": "digest", "sealed": b""},
    "batch.claim": {"batch_id": BATCH},
    "batch.put_off": {"counted": True},
    "batch_queue.release_waiting": {"in_flight": 1_000},
    "change_writer.claim_changes": {"batch_id": 1},
    "identifier_search.find_by_ids": {"wanted": "pipedrive:397"},
    "identifier_search.find_held_values": {"kind": "email"},
    "identifier_search.find_shared": {"pairs": [("email", email) for email in EMAILS]},
    "change_writer.put_back": {"batch_id": 400},
    "change_writer.put_payloads": {"merged": [(number, b"", 1) for number in IDS]},
    "change_writer.write_payload": {"payload": b"{}"},
    "change_writer.write_rejected_fields": {"fields": ["label_ids"]},
    "change_writer.write_reports": {
        "reports": [
            change_writer.OutgoingReport(
                connector_key=CONNECTOR, entity="person", record_id=hull_id, cause="notification", payload=b"", rank=1
            )
            for hull_id in HULL_IDS
        ]
    },
    "change_writer.write_webhooks": {"summaries": SUMMARIES},
    "change.waiting_changes": {"names": {"incoming": "396", "outgoing": "h397"}},
    "connector.add_settings": {"document": {}},
    "connector.keep_default_currency": {"currency": "EUR"},
    "field_definition.claim_reading": {"unknown": ["x"], "burst_s": 1.0, "again_s": 60.0},
    "connector.drop_credentials": {"names": ("webhook_path",)},
    "connector.keep_credential": {"name": "hull_secret"},
    "field_definition.keep_fields": {"rows": []},
    "connector.lock_credentials": {"names": ("webhook_path",)},
    "delivery.keep_delivery": {"key": "new", "body": b""},
    "id_mapping_writer.mark_deleted": {
        "effects": [
            DeletionEffect(
                deletion=Deletion(pipedrive_id=number, state="deleted", at_ms=0),
                outcome=None,
                reason="",
                before={},
                delivered=None,
            )
            for number in IDS
        ],
        "written_at": lambda session: {
            number: known.updated_at
            for number, known in deletion.find_targets(session, CONNECTOR, "person", IDS).items()
        },
    },
    "id_mapping_writer.transfer_attributes": {"left": {number: {"name": "x"} for number in IDS}},
    "job.find_open": {"key": "10"},
    "job.newest_jobs": {"kind": "plan", "keys": ["10"]},
    "job.reopen": {"key": "10", "title": "again", "secret": b"1"},
    "job.was_refused": {"key": "10"},
    "job_item.add_item": {"subject": "person.seen", "payload": b""},
    "job_item.items_of": {"subject": "person.seen"},
    "export_file.add_piece": {"content": b"1"},
    "export_file.begin_file": {"validator": "two", "total_bytes": None},
    "export_file.find_piece": {"number": 3},
    "event_log.neighbours": {"event": lambda session: session.scalars(select(sync_event.SyncEvent).limit(1)).one()},
    "event_log.page_of_events": {"wanted": event_log.EventFilter(reason="option_unknown", entity="person")},
    "failure_closing.close_fields": {"refused": [("7", "label_ids")]},
    "failure_filter.count_fields": {"fields": ["label_ids"]},
    "failure_filter.open_of_record": {"names": {"incoming": "395"}},
    "failure_closing.close_recovered": {"unless": {"7": "gone"}},
    "failure.keep_failures": {
        "failures": [
            failure.NewFailure(
                connector_key=CONNECTOR,
                kind="record",
                subject=f"incoming:person:{number}",
                direction="incoming",
                entity="person",
                stage="load",
                reason="x",
                detail="",
            )
            for number in IDS
        ]
    },
    "joining.store_hull_ids": {"found": {3 * number: f"new{number}" for number in range(1, 9)}},
    "id_mapping_writer.mark_uncertain": {"sent": dict.fromkeys(IDS, b"{}")},
    "id_mapping_writer.note_held": {"held": {number: ({}, {"name": "x"}) for number in IDS}},
    "joining.forget_intents": {"mapping_ids": IDS},
    "joining.store_pending_attributes": {"pending": dict.fromkeys(HULL_IDS, b"{}")},
    "joining.join": {
        "joins": [
            joining.Join(hull_id=f"i{number}", pipedrive_id=900_000 + number, matched_by="created")
            for number in range(1, 50)
        ]
    },
    "joining.remember": {"memories": dict.fromkeys(IDS, (b"{}", None))},
    "identifier.reserve": {"wanted": [("email", f"i{number}@example.com", f"h{number}") for number in IDS]},
    "identifier_search.find_joined": {"wanted": "p397@example.com"},
    "identifier_search.find_records": {"wanted": [("email", email) for email in EMAILS]},
    "identifier.write_aliases": {"aliases": WANTED},
    "deletion.drop_page_ids": {"itself": True},
    "identifier_search.find_by_emails": {"emails": EMAILS},
    "watermark.note_listed": {"until": DAY_AGO},
    "webhook.bodies_of": {"newest": NEWEST},
    "webhook.note_webhooks": {"received": NEWEST},
    "login_attempt.reserve_attempt": {"limits": LIMITS},
    "login_attempt.forgive": {"reserved": RESERVED},
    "login_attempt.give_back": {"reserved": RESERVED},
    "login_attempt.unlock": {"name_digest": b"n"},
    "login_attempt.delete_old_attempts": {"at_most": 5_000},
    "operator.renew_session": {"old": b"old", "new": b"new"},
    "operator.close_session_by_id": {"session_id": 1},
    "operator.put_operator": {"name": "new"},
    "outage.ask": {"remote": "pipedrive", "probe_s": 10.0},
    "outage.end": {"remote": _remote_that_is_out},
    "outage.note_failure": {"remote": "pipedrive", "subject": "batch 1", "detail": ""},
    "page.write_page": {"context": CONTEXT, "rows": PAGE, "known": frozenset(row[0] for row in PAGE)},
    "plan.add_items": {"items": []},
    "plan.given_organizations": {"account_ids": HULL_IDS},
    "plan.items_among": {"direction": "outgoing", "entity": "person", "record_ids": HULL_IDS},
    "plan.reserve": {"first": {("email", email): "h1" for email in EMAILS}},
    "plan.reserved": {"pairs": [("email", email) for email in EMAILS]},
    "plan.leaves_any_out": {"incoming": ["person"], "outgoing": ["person"]},
    "figures.list_active": {"limit": 50},
    "record_events.batch_events": {"record": RECORD},
    "record_events.latest_writes": {"record": RECORD},
    "record_events.next_field_event": {"record": RECORD, "names": FIELD_NAMES, "after": DAY_AGO},
    "record_events.record_events": {"record": RECORD},
    "identifier_search.find_by_values": {"wanted": [("email", email) for email in EMAILS]},
    "replay.incoming_events": {"after": 1},
    "replay.outgoing_events": {"after": 1},
    "schedule.take_share": {"wanted": 3, "most": 10, "every_s": 60.0},
    "run.count": {"deltas": {"read": 1}},
    "run.find_runs": {"exact": {"state": "done"}},
    "schedule.set_schedule": {"next_run_at": DAY_AGO},
    "slot.next_in_turn": {"system": "pipedrive"},
    "slot.take": {"system": "pipedrive", "at_once": 3},
    "sync_event.note_skips": {"reasons": dict.fromkeys(HULL_IDS, "filtered")},
    "snapshot.compressor": {"sample": []},
    "sync_event.old_partitions": {"today": date(2026, 1, 1)},
    "verification.correct_hull_ids": {"right": dict(zip(IDS, HULL_IDS, strict=True)), "unknown": [99_001]},
    "verification.unlisted_ids": {"above": 1, "to": 1_000},
}
"""Function → the arguments that are its own; a mapping or tuple for `*names` and `**names` is unpacked."""


MORE: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("batch.claim", {"batch_id": 1}),
    ("change_writer.claim_changes", {"connector_key": 2, "entity": "organization"}),
    ("change_writer.write_changes", {"keeps_cause": True}),
    (
        "identifier.take_values",
        {"wanted": [("email", f"p{number}@example.com", number + 1) for number in IDS if number % 100]},
    ),
    (
        "identifier.take_values",
        {"wanted": [("domain", f"several{number}.test", number + more) for number in IDS for more in range(3)]},
    ),
    ("deletion.release_to_existing", {"found": {number: f"h{number + 1}" for number in (60, 63, 66, 69)}}),
    ("joining.store_hull_ids", {"found": {3 * number: f"h{number * 3 + 1}" for number in range(1, 9)}}),
    (
        "page.write_page",
        {
            "context": replace(
                CONTEXT, sources={number: change.Source("webhook", number) for number in range(50_000, 50_500)}
            ),
            "rows": PAGE,
            "known": frozenset(row[0] for row in PAGE),
        },
    ),
    (
        "plan.add_items",
        {
            "items": [
                plan.NewItem(direction="outgoing", entity="person", record_id=hull_id, act="same")
                for hull_id in HULL_IDS
            ]
        },
    ),
    ("snapshot.page_of_snapshots", {"planned_by": 1}),
    ("snapshot.page_of_snapshots", {"left_out_by": [1]}),
    ("snapshot.page_of_reports", {"left_out_by": [1]}),
)
"""Functions that execute other statements with these arguments."""

NOT_EXPLAINED: Final = {
    "id_mapping._GUESS": "is an EXPLAIN itself",
    "page._TABLE": "makes a table",
    "page._BEGIN_FRESH": "a savepoint",
    "page._UNDO_FRESH": "a savepoint",
    "session._LOUD": "reads no table",
    "token_ledger._WRITE": "inserts a handful of values by their key",
}


def functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield (`module.function`, function) for every public function of `db/` that takes a session."""
    for found in pkgutil.iter_modules(db.__path__):
        module = importlib.import_module(f"db.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own and "session" in inspect.signature(function).parameters:
                yield f"{found.name}.{name}", function


def calls() -> Iterator[tuple[str, Call]]:
    """Yield each function that queries the database, with its arguments. Raises LookupError for an unknown argument."""
    for name, function in functions():
        if name not in NOT_CALLED:
            yield name, partial(_call, name, function, OWN.get(name, {}))
    by_name = dict(functions())
    for name, own in MORE:
        yield f"{name} with {', '.join(own)}", partial(_call, name, by_name[name], OWN.get(name, {}) | own)


def _call(name: str, function: Callable[..., object], own: dict[str, Any], session: Session) -> object:
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        given = _argument(name, parameter, own, session)
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(given)
        elif parameter.kind is parameter.VAR_KEYWORD:
            named.update(given)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = given
        else:
            positional.append(given)
    found = function(*positional, **named)
    return list(found) if inspect.isgenerator(found) else found


def _argument(name: str, parameter: inspect.Parameter, own: dict[str, Any], session: Session) -> Any:
    if parameter.name == "session":
        return session
    if parameter.name in own:
        given = own[parameter.name]
        return given(session) if callable(given) else given
    if parameter.default is not parameter.empty:
        return parameter.default
    if parameter.name in ROWS_BY_NAME:
        return ROWS_BY_NAME[parameter.name](session)
    if parameter.name in BY_NAME:
        return BY_NAME[parameter.name]
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return {}
    raise LookupError(
        f"no test calls {name} on 100,000 rows: add its {parameter.name} in tests/integration/statements/calls.py"
    )
