"""Supported Objects: Persons and Organizations, and nothing else."""

from __future__ import annotations

import pytest

from tests.deliveries import deliver, listen
from tests.guide.people import add_ada
from tests.system import SyncSystem


@pytest.mark.guide(
    "Supported Objects",
    "Nothing else is synchronized: a webhook about a deal, for example, is noted and left alone.",
)
def test_a_deal_is_left_alone(system: SyncSystem) -> None:
    said = listen(system)
    add_ada(system)
    deal = said[0]
    deal["meta"]["entity"] = "deal"

    deliver(system, deal)
    system.work()

    kept = system.rows("SELECT state, reason FROM deliveries")
    assert [tuple(row) for row in kept] == [("refused", "not_synchronised")]
    assert system.hull.received.count == 0
