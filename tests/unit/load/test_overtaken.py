"""What another worker was faster with is counted once."""

from __future__ import annotations

from db.page import PageConflicts
from pipeline.domain.kinds import Entity
from pipeline.load.incoming import CHANGED, NEW, SAME, FirehoseRecord, PagePlan, count_anew


def test_what_another_worker_told_first_is_no_longer_counted_as_new_or_changed() -> None:
    effects = {1: NEW, 2: NEW, 3: CHANGED, 4: CHANGED, 5: NEW}
    plan = PagePlan(entity=Entity.PERSON)
    for pipedrive_id, effect in effects.items():
        plan.sendings.append(FirehoseRecord({"pipedrive_id": pipedrive_id}, effect, None))
        plan.counters[effect] += 1

    count_anew(plan, PageConflicts(stale=frozenset({2}), repeated=frozenset({1, 3})))

    assert dict(plan.counters) == {NEW: 1, CHANGED: 1, SAME: 2, "skipped": 1}
