"""Verify: changes behind the connector's back are found exactly and repaired; a system without them has no drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from db import job as jobs
from db.session import transaction
from pipeline.domain.drift import Drift
from pipeline.domain.kinds import Entity
from pipeline.errors import Retryable
from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import age_records, create_records, raw_person
from tests.journeys.test_bad_records import GOES_WHOLE, GOES_WITHOUT, REFUSED
from tests.logs import captured_log
from tests.prepared import prepared
from tests.system import SyncSystem, default_settings

SOME_TIME_AGO = "2026-02-01T00:00:00Z"
"""Later than what was fetched, and long enough ago that its event must have come."""

Seen = tuple[str, str, int]


def synchronize(system: SyncSystem) -> None:
    """Fetch everything, resolve Hull's ids, and let an hour pass."""
    for entity in (Entity.ORGANIZATION, Entity.PERSON):
        system.fetch(entity)
    finish_work(system)


def finish_work(system: SyncSystem) -> None:
    """Process waiting work, resolve Hull's ids, and let an hour pass."""
    system.end_pauses()
    system.work()
    system.change_rows("UPDATE id_mappings SET resolve_at = now() WHERE resolve_at IS NOT NULL")
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    system.change_rows("UPDATE id_mappings SET updated_at = now() - interval '1 hour'")


def compare(system: SyncSystem, **options: Any) -> Any:
    verify = system.module("jobs.verify.verify")
    order = verify.VerifyOrder(sample=options.get("sample"), requested_by="ana")
    with transaction() as session:
        job_id = verify.enqueue(session, system.connector_key, order)
    system.run_jobs()
    with transaction() as session:
        job = jobs.get_job(session, job_id)
        assert job.state == "done", job.reason
        return verify.report_of(session, job)


def repair(system: SyncSystem, report: Any) -> Counter[str]:
    """Repair what a comparison found, as its job does."""
    module = system.module("jobs.verify.verify")
    done: Counter[str] = Counter()
    for piece in module.pieces_of(report.entities):
        with transaction() as session:
            done += module.repair(session, system.connector_key, piece)
    return done


def seen(report: Any) -> list[Seen]:
    """(kind, entity, Pipedrive id) of everything that was found."""
    return sorted((each.kind.value, part.entity.value, each.pipedrive_id) for part, each in _each(report))


def _each(report: Any) -> Iterator[tuple[Any, Any]]:
    return ((part, finding) for part in report.entities for finding in part.findings)


def part_of(report: Any, entity: Entity = Entity.PERSON) -> Any:
    return next(part for part in report.entities if part.entity is entity)


def user(system: SyncSystem, pipedrive_id: int) -> Any:
    return system.hull.users.by_anonymous[f"pipedrive:{pipedrive_id}"]


def account(system: SyncSystem, pipedrive_id: int) -> Any:
    return system.hull.accounts.by_anonymous[f"pipedrive:{pipedrive_id}"]


def write(system: SyncSystem, entity: Any, **values: Any) -> None:
    """Write in Hull, as a person or another connector would."""
    named = {name.replace("__", "/"): value for name, value in values.items()}
    assert system.hull.write(entity, named, now=system.hull.clock(), problems=[])


def change_silently(system: SyncSystem, entity: Entity, pipedrive_id: int, **members: Any) -> None:
    """Change a record in Pipedrive some time ago, without a webhook."""
    record = system.company.record(entity.value, pipedrive_id)
    assert record is not None
    system.company.load(entity.value, {**record, "update_time": SOME_TIME_AGO, **members})


@pytest.fixture
@prepared
def synced(system: SyncSystem) -> SyncSystem:
    """120 Persons and 40 Organizations, equal on all sides."""
    create_records(system)
    age_records(system)
    age_records(system, Entity.ORGANIZATION)
    synchronize(system)
    return system


def test_nothing_is_found_where_nothing_is_wrong(synced: SyncSystem) -> None:
    report = compare(synced)

    assert seen(report) == []
    assert [(part.pipedrive, part.hull, part.compared) for part in report.entities] == [(40, 40, 40), (120, 120, 120)]
    assert [(part.outdated, part.pending.total(), part.failed.total()) for part in report.entities] == [(0, 0, 0)] * 2
    assert [part.differing for part in report.entities] == [0, 0]
    assert report.tokens == 10 * 2 + 10 * (1 + 3)


def plant_drift(system: SyncSystem) -> list[Seen]:
    """Make twelve records wrong, each in its own way."""
    write(system, user(system, 3), pipedrive__name="Somebody else")
    system.hull.incinerate(user(system, 8))
    system.hull.link(user(system, 11), account(system, 1), system.hull.clock())
    system.hull.unlink(user(system, 12))
    system.change_rows("DELETE FROM id_mappings WHERE entity = 'person' AND pipedrive_id = 16")
    swap_hull_ids(system, 21, 22)
    change_silently(system, Entity.PERSON, 26, name="Edited unheard")
    change_silently(system, Entity.PERSON, 31, emails=[])
    write(system, user(system, 36), pipedrive__owner_id=None)
    system.company.load("person", {**(system.company.record("person", 41) or {}), "id": 900, "emails": []})
    system.company.delete_person(46)
    write(system, account(system, 4), pipedrive__website="https://elsewhere.example.com")
    person = Entity.PERSON.value
    return sorted(
        [
            (Drift.DIFFERENT.value, person, 3),
            (Drift.MISSING.value, person, 8),
            (Drift.UNLINKED.value, person, 11),
            (Drift.UNLINKED.value, person, 12),
            (Drift.UNMAPPED.value, person, 16),
            (Drift.MISMAPPED.value, person, 21),
            (Drift.MISMAPPED.value, person, 22),
            (Drift.DIFFERENT.value, person, 26),
            (Drift.DIFFERENT.value, person, 31),
            (Drift.DIFFERENT.value, person, 36),
            (Drift.MISSING.value, person, 900),
            (Drift.EXTRA.value, person, 46),
            (Drift.DIFFERENT.value, Entity.ORGANIZATION.value, 4),
        ]
    )


def swap_hull_ids(system: SyncSystem, one: int, other: int) -> None:
    ids = {pipedrive_id: user(system, pipedrive_id).id for pipedrive_id in (one, other)}
    for pipedrive_id, hull_id in ((one, None), (other, ids[one]), (one, ids[other])):
        system.change_rows(
            "UPDATE id_mappings SET hull_id = :hull WHERE entity = 'person' AND pipedrive_id = :id",
            hull=hull_id,
            id=pipedrive_id,
        )


def test_all_drift_is_found_and_nothing_else(synced: SyncSystem) -> None:
    planted = plant_drift(synced)

    report = compare(synced)

    assert seen(report) == planted
    different = {finding.pipedrive_id: finding.differences for _, finding in _each(report) if finding.differences}
    assert [(each.attribute, each.pipedrive, each.hull) for each in different[3]] == [
        ("pipedrive/name", "Person 3", "Somebody else")
    ]
    assert [(each.attribute, each.pipedrive, each.hull) for each in different[31]] == [
        ("pipedrive/email", None, "p31@example.com")
    ]


def test_a_repair_leaves_nothing_to_find(synced: SyncSystem) -> None:
    planted = plant_drift(synced)
    report = compare(synced)

    repaired = repair(synced, report)
    waiting = compare(synced)
    finish_work(synced)
    after = compare(synced)

    assert repaired.total() == len(planted)
    assert seen(waiting) == []
    assert part_of(waiting).pending["a pending change"] > 0
    assert seen(after) == []
    assert [part.pending.total() + part.failed.total() for part in after.entities] == [0, 0]
    assert synced.users()[3]["pipedrive/name"] == "Person 3"
    assert synced.users()[31].get("pipedrive/email") is None
    assert synced.users()[8]["pipedrive/name"] == "Person 8"


def test_what_pipedrive_does_not_have_is_handed_over_as_missing(synced: SyncSystem) -> None:
    synced.company.delete_person(46)

    repair(synced, compare(synced))

    assert [tuple(row) for row in synced.rows("SELECT entity, record_id, cause FROM changes")] == [
        ("person", "46", "missing")
    ]


def test_no_value_of_a_record_is_logged(synced: SyncSystem) -> None:
    plant_drift(synced)

    with captured_log() as lines:
        compare(synced)

    assert "Somebody else" not in str(lines)
    assert "example.com" not in str(lines)


def test_failed_records_and_rejected_fields_are_no_drift(system: SyncSystem) -> None:
    create_records(system, persons=30, organizations=5)
    strange = [case[1] for case in (*GOES_WHOLE, *GOES_WITHOUT, *REFUSED)]
    for number, record in enumerate(strange, 100):
        is_numbered = type(record.get("id")) is int
        mail = [{"value": f"odd{number}@example.com", "primary": True}]
        own = {"id": number, **({"emails": mail} if record.get("emails") == raw_person()["emails"] else {})}
        system.company.put_raw("person", record | own if is_numbered and record["id"] == 10 else record)
    synchronize(system)

    report = compare(system)

    assert seen(report) == []
    assert {reason for reason, count in part_of(report).failed.items() if count} == {"no_id", "no_update_time"}


def test_two_with_one_e_mail_shells_and_deleted_ones_are_no_drift(system: SyncSystem) -> None:
    create_records(system, persons=10, organizations=3)
    for _ in range(2):
        system.company.create_person(name="Twin", emails=[{"value": "twin@example.com", "primary": True}])
    system.company.put_raw("person", raw_person(id=70, org_id=999))
    system.company.put_raw("person", raw_person(id=71, is_deleted=True, emails=[]))
    synchronize(system)

    report = compare(system)

    assert seen(report) == []
    assert part_of(report, Entity.ORGANIZATION).id_map == {"full": 3, "shell": 1}


def test_records_known_as_deleted_are_no_drift(synced: SyncSystem) -> None:
    for pipedrive_id, state in ((46, "deleted"), (47, "gone"), (48, "merged")):
        synced.company.delete_person(pipedrive_id)
        synced.change_rows(
            "UPDATE id_mappings SET state = :state WHERE entity = 'person' AND pipedrive_id = :id",
            state=state,
            id=pipedrive_id,
        )
    synced.company.delete_person(49)
    write(synced, user(synced, 49), pipedrive__deleted_at="2026-02-01T00:00:00Z")

    assert seen(compare(synced)) == []


@pytest.mark.parametrize("entity", list(Entity))
def test_a_deleted_record_that_hull_still_shows_is_found_and_marked(synced: SyncSystem, entity: Entity) -> None:
    synced.change_settings(support_user_deletion=True, support_account_deletion=True)
    synchronize(synced)
    held = (user if entity is Entity.PERSON else account)(synced, 3)
    synced.company.delete(entity.value, 3)
    synced.fetch(entity)
    finish_work(synced)
    marked = held.attributes.get("pipedrive/id"), seen(compare(synced))
    write(synced, held, pipedrive__id=3, pipedrive__deleted_at=None)

    report = compare(synced)
    repair(synced, report)
    finish_work(synced)

    assert marked == (None, [])
    assert seen(report) == [("unmarked", entity.value, 3)]
    assert held.attributes.get("pipedrive/id") is None
    assert held.attributes["pipedrive/deleted_at"] is not None
    assert seen(compare(synced)) == []


def test_a_merge_that_hull_missed_is_found_and_repeated(synced: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hull lost the message: nothing answers an alias."""
    synced.change_settings(support_user_deletion=True)
    synchronize(synced)
    webhooks = listen(synced)
    synced.company.merge("person", 3, 4)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.sync.incoming.deletions.compose_deletions", lambda *_: [])
        deliver(synced, *webhooks)
        synced.work()
    finish_work(synced)

    report = compare(synced)
    repair(synced, report)
    finish_work(synced)

    assert ("unmarked", "person", 3) in seen(report)
    assert user(synced, 3) is user(synced, 4)
    assert seen(compare(synced)) == []


def test_without_deletions_hull_keeps_the_id(synced: SyncSystem) -> None:
    synced.company.delete("person", 3)
    synced.fetch(Entity.PERSON)
    finish_work(synced)

    assert user(synced, 3).attributes["pipedrive/id"] == 3
    assert seen(compare(synced)) == []


def test_a_record_that_came_back_is_unmapped(synced: SyncSystem) -> None:
    synced.change_rows("UPDATE id_mappings SET state = 'deleted' WHERE entity = 'person' AND pipedrive_id = 46")

    assert seen(compare(synced)) == [("unmapped", "person", 46)]


def test_what_changed_just_now_is_not_drift(synced: SyncSystem) -> None:
    synced.company.edit_person(5, name="Changed just now")

    report = compare(synced)

    assert seen(report) == []
    assert part_of(report).pending == {"an edit of the last ten minutes": 1}


def test_what_was_delivered_just_now_may_not_be_in_the_search_yet(synced: SyncSystem) -> None:
    write(synced, user(synced, 5), pipedrive__name="Older")
    synced.change_rows("UPDATE id_mappings SET updated_at = now() WHERE entity = 'person' AND pipedrive_id = 5")

    report = compare(synced)

    assert (seen(report), part_of(report).pending) == ([], {"a delivery of the last minute": 1})


def test_during_a_fetch_nothing_is_drift(synced: SyncSystem) -> None:
    write(synced, user(synced, 5), pipedrive__name="Older")
    synced.start(Entity.PERSON)

    report = compare(synced)

    assert (seen(report), part_of(report).pending) == ([], {"a fetch in flight": 1})


def test_a_fetch_of_what_changed_lately_excuses_no_other_record(synced: SyncSystem) -> None:
    write(synced, user(synced, 5), pipedrive__name="Older")
    synced.start(Entity.PERSON)
    synced.change_rows(
        "UPDATE runs SET kind = 'incremental', since = now() - interval '6 minutes' WHERE state = 'running'"
    )

    assert seen(compare(synced)) == [("different", "person", 5)]


def test_a_change_of_the_user_that_waits_to_go_out_is_not_drift(synced: SyncSystem) -> None:
    write(synced, user(synced, 5), pipedrive__name="Newer")
    synced.change_rows(
        "INSERT INTO changes (connector_key, direction, entity, record_id, cause)"
        " VALUES (:c, 'outgoing', 'person', :hull, 'notification')",
        c=synced.connector_key,
        hull=user(synced, 5).id,
    )

    assert seen(compare(synced)) == []


def test_an_open_failure_is_no_drift(synced: SyncSystem) -> None:
    change_silently(synced, Entity.PERSON, 5, name="Never came through")
    synced.change_rows(
        "INSERT INTO failures (connector_key, kind, subject, direction, entity, record_id, stage, reason, detail, fingerprint)"
        " VALUES (:c, 'record', 'incoming:person:5', 'incoming', 'person', '5', 'load', 'internal_error', '', 'f')",
        c=synced.connector_key,
    )

    report = compare(synced)

    assert (seen(report), part_of(report).failed) == ([], {"internal_error": 1})


def test_records_that_hull_has_merged_are_counted_by_their_reason(synced: SyncSystem) -> None:
    synced.hull.identify("user", claims_of(synced, 5, 6), create=False, now=synced.hull.clock())
    synced.change_rows(
        "UPDATE id_mappings SET state = 'conflict', hull_id = NULL WHERE entity = 'person' AND pipedrive_id = 6"
    )

    report = compare(synced)

    assert seen(report) == []
    assert set(part_of(report).failed) == {"two_records_one_hull_id"}


def test_a_resolved_conflict_is_found_and_repaired(synced: SyncSystem) -> None:
    synced.change_rows(
        "UPDATE id_mappings SET state = 'conflict', hull_id = NULL, resolve_at = now() + interval '1 hour'"
        " WHERE entity = 'person' AND pipedrive_id = 6"
    )

    report = compare(synced)
    repair(synced, report)
    synced.module("sync.changes.hull_ids").resolve(synced.connector_key)

    assert seen(report) == [("unmapped", "person", 6)]
    (row,) = synced.rows("SELECT state, hull_id FROM id_mappings WHERE entity = 'person' AND pipedrive_id = 6")
    assert tuple(row) == ("full", user(synced, 6).id)


def claims_of(system: SyncSystem, one: int, other: int) -> Any:
    """Return claims that make Hull merge two Users: the e-mail of one with the anonymous id of the other."""
    from sandbox.hull.identity import Claims  # noqa: PLC0415 - only this test merges

    return Claims(None, None, user(system, one).natural, f"pipedrive:{other}")


def create_foreign_user(system: SyncSystem, number: int) -> Any:
    """Create a User with a Pipedrive id from another source."""
    from sandbox.hull.identity import Claims  # noqa: PLC0415 - as above

    found = system.hull.identify("user", Claims(None, f"s{number}", None, None), create=True, now=system.hull.clock())
    write(system, found.entity, pipedrive__id=number)
    return found.entity


def test_records_that_only_hull_has_are_found_by_counting_and_not_changed(synced: SyncSystem) -> None:
    numbers = [50_000, *range(1_000, 1_450), 2**40]
    for number in numbers:
        create_foreign_user(synced, number)
    double = create_foreign_user(synced, 7)

    report = compare(synced)

    person = part_of(report)
    assert sorted(each.pipedrive_id for each in person.findings) == sorted([7, *numbers])
    assert {each.hull_id for each in person.findings if each.pipedrive_id == 7} == {double.id}
    assert person.hull == 120 + len(numbers) + 1
    repaired = repair(synced, report)
    assert repaired == {"left": len(numbers) + 1}
    assert synced.rows("SELECT 1 FROM changes") == []


def test_what_another_source_wrote_is_not_compared(synced: SyncSystem) -> None:
    write(synced, user(synced, 5), plan="pro", pipedrive__note="ours to nobody", pipedrive__phone="+1 555 0100")

    assert seen(compare(synced)) == []


def test_users_need_no_account_where_links_are_off(synced: SyncSystem) -> None:
    synced.hull.unlink(user(synced, 12))
    synced.change_settings(link_users_in_hull=False)

    report = compare(synced)

    assert seen(report) == []
    assert part_of(report).outdated == 120


def test_an_attribute_mapped_since_the_last_fetch_differs(synced: SyncSystem) -> None:
    rows = [*default_settings()["incoming_user_attributes"], {"hull": "called", "service": "name"}]
    synced.change_settings(incoming_user_attributes=rows)

    report = compare(synced)

    assert part_of(report).drift == 120
    assert {each.differences[0].attribute for each in part_of(report).findings} == {"called"}


def test_a_sample_looks_at_no_more_than_was_asked(synced: SyncSystem) -> None:
    write(synced, user(synced, 3), pipedrive__name="Somebody else")

    whole = compare(synced, sample=400)
    some = compare(synced, sample=9)

    assert seen(whole) == [("different", "person", 3)]
    assert [part.compared for part in some.entities] == [9, 9]
    assert some.tokens <= 10 * 2 * 3


@pytest.mark.parametrize("line", ["_compare_page", "_find_hull_only", "_recheck", "write", "_keep"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_comparison_continues_after_a_killed_worker_and_finds_the_same(
    synced: SyncSystem, monkeypatch: pytest.MonkeyPatch, line: str, *, after: bool
) -> None:
    plant_drift(synced)
    whole = compare(synced)
    module = synced.module("jobs.verify.verify" if line == "_keep" else "jobs.verify.comparison")
    place = {"write": "StepItems", "_keep": None}.get(line, "Comparison")
    target = module if place is None else getattr(module, place)
    real, calls = getattr(target, line), []

    def kill(*given: Any) -> Any:
        calls.append(line)
        is_time = len(calls) == (1 if line == "_keep" else 2)
        if is_time and not after:
            raise SystemExit
        answer = real(*given)
        if is_time:
            raise SystemExit
        return answer

    monkeypatch.setattr(target, line, kill)
    with transaction() as session:
        order = synced.module("jobs.verify.verify").VerifyOrder(sample=None, requested_by="ana")
        job_id = synced.module("jobs.verify.verify").enqueue(session, synced.connector_key, order)
    with pytest.raises(SystemExit):
        synced.run_jobs()
    synced.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
    synced.run_jobs()

    with transaction() as session:
        job = jobs.get_job(session, job_id)
        resumed = synced.module("jobs.verify.verify").report_of(session, job)
    assert (job.state, job.lease_token) == ("done", 2)
    assert seen(resumed) == seen(whole)
    assert [part.model_dump() for part in resumed.entities] == [part.model_dump() for part in whole.entities]
    first, second = synced.rows("SELECT drift, counts, named FROM verifications ORDER BY id")
    assert first == second


def test_waiting_for_the_limit_or_the_budget_is_no_attempt_and_loses_nothing(
    synced: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_drift(synced)
    whole = compare(synced)
    reading = synced.module("jobs.verify.reading").Reader
    real, troubles = (
        reading.page,
        [
            trouble
            for _ in range(12)
            for trouble in (
                None,
                Retryable("rate_limited", retry_after_s=2.0),
                Retryable("daily_budget_spent", retry_after_s=3600.0),
            )
        ],
    )

    def page(self: Any, cursor: str | None) -> Any:
        trouble = troubles.pop(0)
        if trouble:
            raise trouble
        return real(self, cursor)

    monkeypatch.setattr(reading, "page", page)
    verify = synced.module("jobs.verify.verify")
    with transaction() as session:
        job_id = verify.enqueue(session, synced.connector_key, verify.VerifyOrder(sample=None, requested_by="ana"))
    waits = set()
    for _ in range(20):
        synced.run_jobs()
        [row] = synced.rows("SELECT state, attempts, waits_for FROM jobs WHERE id = :id", id=job_id)
        assert row.attempts <= 1
        waits.add(row.waits_for)
        synced.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")

    with transaction() as session:
        job = jobs.get_job(session, job_id)
        assert (job.state, seen(verify.report_of(session, job))) == ("done", seen(whole))
    assert {"rate limit", "daily budget"} <= waits
    assert synced.rows("SELECT 1 FROM failures") == []


def test_one_that_is_requested_while_it_runs_is_joined(synced: SyncSystem) -> None:
    verify = synced.module("jobs.verify.verify")
    order = verify.VerifyOrder(sample=None, requested_by="ana")
    with transaction() as session:
        first = verify.enqueue(session, synced.connector_key, order)
        assert verify.enqueue(session, synced.connector_key, order) == first

    synced.run_jobs()

    assert len(synced.rows("SELECT 1 FROM verifications")) == 1


def test_what_was_found_is_deleted_a_day_after_the_end(synced: SyncSystem) -> None:
    plant_drift(synced)
    compare(synced)
    synced.change_rows("UPDATE jobs SET ended_at = now() - interval '25 hours'")
    before = synced.rows("SELECT 1 FROM job_items")

    synced.module("sync.upkeep").tidy()

    assert before
    assert synced.rows("SELECT 1 FROM job_items") == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_repair_continues_after_a_killed_worker_and_repairs_everything(
    synced: SyncSystem, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    planted = plant_drift(synced)
    verify = synced.module("jobs.verify.verify")
    monkeypatch.setattr(synced.module("jobs.verify.verify"), "PIECE_SIZE", 3)
    real, calls = verify.repair, []

    def kill(*given: Any) -> Any:
        calls.append(given)
        done = real(*given) if after or len(calls) != 3 else None
        if len(calls) == 3:
            raise SystemExit
        return done

    monkeypatch.setattr(verify, "repair", kill)
    with transaction() as session:
        order = verify.VerifyOrder(sample=None, requested_by="ana")
        job_id = verify.enqueue(session, synced.connector_key, order)
    synced.run_jobs()
    with transaction() as session:
        job = jobs.get_job(session, job_id)
        assert verify.repairable(session, job) == len({(entity, number) for _, entity, number in planted})
        assert verify.begin_repair(session, job, count=len(planted), requested_by="ana")
    with pytest.raises(SystemExit):
        synced.run_jobs()
    synced.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
    synced.run_jobs()

    with transaction() as session:
        job = jobs.get_job(session, job_id)
        repaired = verify.report_of(session, job).repaired
    finish_work(synced)
    assert (job.state, repaired.total()) == ("done", len(planted))
    assert seen(compare(synced)) == []
