"""Write a page to the id map, the snapshots and the event log: append its records if all are new, otherwise merge them."""

from __future__ import annotations

import pytest

from db import id_mapping
from db.page import PageConflicts, PageContext, PageRow, write_page
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.system import SyncSystem


def context(system: SyncSystem) -> PageContext:
    return PageContext(
        connector_key=system.connector_key,
        entity=Entity.PERSON,
        event="incoming.user.success",
        cause="fetch",
        matched_by="fetched",
        run_id=None,
        batch_id=1,
        settings_version=1,
    )


def row(pipedrive_id: int, version: int = 10) -> PageRow:
    written = b'{"version":%d}' % version
    return PageRow(pipedrive_id, version, f"d{version}", written, b"s%d" % version, None, written, 1)


def written(system: SyncSystem) -> list[tuple[int, int, str, int, int]]:
    """Return (id, version, state, version of the snapshot) of each mapping, and the number of events."""
    rows = system.rows(
        """SELECT m.pipedrive_id, m.version, m.state, s.version AS kept, count(e.id) AS events FROM id_mappings m
             JOIN snapshots s ON s.record_id = m.pipedrive_id::text JOIN sync_events e ON e.pipedrive_id = m.pipedrive_id
            GROUP BY 1, 2, 3, 4 ORDER BY 1"""
    )
    return [tuple(each) for each in rows]


@pytest.mark.parametrize("known", [None, set()])
def test_new_records_are_written_with_and_without_a_look_up(system: SyncSystem, known: set[int] | None) -> None:
    with transaction() as session:
        assert write_page(session, context(system), [row(2), row(1)], known) == PageConflicts()

    assert written(system) == [(1, 10, "full", 10, 1), (2, 10, "full", 10, 1)]


def test_a_page_is_merged_if_another_worker_has_inserted_one_of_its_records(system: SyncSystem) -> None:
    with transaction() as session:
        write_page(session, context(system), [row(2, 20)], set())
    with transaction() as session:
        conflicts = write_page(session, context(system), [row(1), row(2), row(3)], set())

    assert conflicts == PageConflicts(stale=frozenset({2}))
    assert written(system) == [(1, 10, "full", 10, 1), (2, 20, "full", 20, 1), (3, 10, "full", 10, 1)]


def test_known_and_unknown_records_may_share_a_page(system: SyncSystem) -> None:
    with transaction() as session:
        write_page(session, context(system), [row(1)], set())
    with transaction() as session:
        assert write_page(session, context(system), [row(1, 20), row(2, 20)], {1}) == PageConflicts()

    assert written(system) == [(1, 20, "full", 20, 2), (2, 20, "full", 20, 1)]


@pytest.mark.parametrize("known", [set(), {1, 2}])
def test_a_state_that_another_worker_has_sent_is_logged_once(system: SyncSystem, known: set[int]) -> None:
    with transaction() as session:
        write_page(session, context(system), [row(2)], set())
    with transaction() as session:
        conflicts = write_page(session, context(system), [row(1), row(2)], known)

    assert conflicts == PageConflicts(repeated=frozenset({2}))
    assert written(system) == [(1, 10, "full", 10, 1), (2, 10, "full", 10, 1)]


@pytest.mark.parametrize(
    ("read", "is_left_out"), [(("d10", 10), True), (("d10", 11), False), (("d9", 10), False), (("d1", 10), False)]
)
def test_delivered_values_are_left_out_only_of_unchanged_records(
    system: SyncSystem, read: tuple[str, int], is_left_out: bool
) -> None:
    with transaction() as session:
        write_page(session, context(system), [row(1)], set())
        known = id_mapping.known(session, system.connector_key, Entity.PERSON, [1, 2], unchanged=[read, ("d5", 5)])

    assert list(known) == [1]
    assert (known[1].version, known[1].digest) == (10, "d10")
    delivered = known[1].delivered
    assert (delivered and bytes(delivered)) == (None if is_left_out else b'{"version":10}')
