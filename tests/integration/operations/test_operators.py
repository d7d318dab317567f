"""An operator is found by id or name; a name may be a number."""

from __future__ import annotations

from pipeline.domain.kinds import Role
from tests import accounts
from tests.command_line import Run
from tests.system import SyncSystem


def test_an_operator_with_a_number_as_name_is_found_by_it(system: SyncSystem, run: Run) -> None:
    assert system
    accounts.add("4711", None, Role.VIEWER)

    assert run("operators", "log-out", "4711").code == 0


def test_a_number_that_is_one_operators_id_and_another_ones_name_is_refused(system: SyncSystem, run: Run) -> None:
    assert system
    ana = accounts.add("ana@acme.test", None, Role.VIEWER).id
    other = accounts.add(str(ana), None, Role.VIEWER).id

    refused = run("operators", "log-out", str(ana))
    by_id, by_name = run("operators", "log-out", str(other)), run("operators", "log-out", "ana@acme.test")

    assert refused.err == (
        f"Error: {ana} is the id of one operator and the name of another.\n"
        f"Next:  Give the id {other}, or the name of the operator with id {ana}.\n"
    )
    assert (refused.code, by_id.code, by_name.code) == (1, 0, 0)


def test_an_operator_named_like_its_own_id_is_found(system: SyncSystem, run: Run) -> None:
    assert system
    ana = accounts.add("ana@acme.test", None, Role.VIEWER).id
    accounts.add(str(ana + 1), None, Role.VIEWER)

    assert run("operators", "log-out", str(ana + 1)).code == 0
