"""Ten minutes of edits on both sides: afterwards both sides agree, no edit is lost, and nothing was sent twice."""

from __future__ import annotations

import sys

import pytest

from pipeline.domain.settings import Owner
from tests.journeys.both_ways import BothWays, Judgement, both_ways, judge
from tests.journeys.hull_messages import failures, writes
from tests.logs import captured_log

OWNERS: list[Owner] = ["hull", "pipedrive", "latest"]
CASES = [
    pytest.param(owner, seed, marks=[] if (owner, seed) == ("latest", 1) else pytest.mark.slow)
    for owner in OWNERS
    for seed in range(1, 6)
]
"""Of every day only the owner by whom both sides win in turn."""


@pytest.mark.parametrize(("owner", "seed"), CASES)
def test_ten_minutes_of_edits_on_both_sides(database: str, owner: Owner, seed: int) -> None:
    with captured_log("critical"), both_ways(owner=owner, seed=seed) as life:
        life.live(minutes=10)
        life.finish()
        hull, pipedrive = life.hull_holds(), life.pipedrive_holds()
        found = judge(life, pipedrive)
        report(life, found, seed)

        assert min(life.counts["edits in hull"], life.counts["edits in pipedrive"]) > 60
        assert min(found.one_sided, found.two_sided) > 15
        assert {place: (value, pipedrive[place]) for place, value in hull.items() if value != pipedrive[place]} == {}
        assert found.lost == []
        assert found.misjudged == []
        assert life.counts["writes that changed Pipedrive"] == len(writes(life.system))
        assert echoes(life, found) == set()
        assert failures(life.system) == []

        before = len(writes(life.system)), life.system.hull.received.count
        life.report_everything_again()
        assert (len(writes(life.system)), life.system.hull.received.count) == before


def echoes(life: BothWays, found: Judgement) -> set[tuple[str, int]]:
    """Return the records with a message to Hull that changed nothing, except those with a field that both sides edited.

    After such an edit Hull always receives the winning value, because no report shows which value it received last.
    """
    return set(life.sent_twice) - found.contested


def report(life: BothWays, found: Judgement, seed: int) -> None:
    """Print what happened, for runs with `-s`."""
    sys.stdout.write(
        f"owner {life.owner}, seed {seed}: {dict(life.counts)}, {len(writes(life.system))} writes to Pipedrive;"
        f" {found.one_sided} exchanges of one side, {found.two_sided} of both ({found.either} undecided by time);"
        f" {len(found.lost)} lost, {len(found.misjudged)} misjudged; {len(life.sent_twice)} sent again after a conflict\n"
    )
