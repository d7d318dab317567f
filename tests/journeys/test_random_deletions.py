"""Deletes, restorations, merges and edits at random, their webhooks lost, late and repeated: both sides agree in the end."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from pipeline.domain.deletions import DELETED_STATES
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.hull_messages import work_until_idle
from tests.journeys.pipedrive_records import age_records, create_records, pipedrive_names
from tests.journeys.test_deletions import is_finished, resolve, states, user
from tests.system import SyncSystem

PERSONS = 16
ACTIONS = 60


def act(system: SyncSystem, draw: Random, number: int) -> None:
    """One thing a salesperson may do to a Person that is there, or to one that was."""
    living = sorted(pipedrive_names(system))
    gone = sorted(set(range(1, PERSONS + 1)) - set(living))
    choice = draw.random()
    if choice < 0.3 and gone:
        system.company.undelete("person", draw.choice(gone))
    elif choice < 0.6 or len(living) < 4:
        phones = draw.choice(([], [{"value": f"+1 {number}", "primary": True}]))
        system.company.edit_person(draw.choice(living), name=f"Name {number}", phones=phones)
    elif choice < 0.85:
        system.company.delete_person(draw.choice(living))
    else:
        loser, survivor = draw.sample(living, 2)
        system.company.merge("person", loser, survivor)


TRIES = 3
"""Rounds of waiting: a record with a newest webhook of the same second, or later, is read up to six times."""


def phones(system: SyncSystem) -> dict[int, Any]:
    """Pipedrive id → the first phone, as Pipedrive has it."""
    held = {number: (system.company.record("person", number) or {}).get("phones") for number in pipedrive_names(system)}
    return {number: each[0]["value"] if each else None for number, each in held.items()}


def spread(system: SyncSystem, draw: Random, sent: list[dict[str, Any]]) -> None:
    """Deliver some of the webhooks: some are lost, some come twice, and all are out of order."""
    arriving = [webhook for webhook in sent for _ in range(draw.choice((0, 1, 1, 1, 2)))]
    sent.clear()
    draw.shuffle(arriving)
    for webhook in arriving:
        deliver(system, {**webhook, "meta": {**webhook["meta"], "id": f"{draw.random()}"}})


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_both_sides_agree_in_the_end(system: SyncSystem, seed: int) -> None:
    system.change_settings(support_user_deletion=True)
    create_records(system, persons=PERSONS, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    draw, sent = Random(seed), listen(system)
    for number in range(ACTIONS):
        act(system, draw, number)
        if draw.random() < 0.3:
            spread(system, draw, sent)
            system.work()
        if draw.random() < 0.1:
            resolve(system)
    system.end_pauses()
    system.work()

    system.fetch(Entity.PERSON)
    for _ in range(TRIES):
        work_until_idle(system)
    resolve(system)

    living, known = pipedrive_names(system), states(system)
    shown = {number: user(system, number) for number in range(1, PERSONS + 1)}
    assert {number for number, state in known.items() if state not in DELETED_STATES} == set(living)
    assert {number: shown[number]["pipedrive/name"] for number in living} == living
    assert {number: shown[number].get("pipedrive/phone") for number in living} == phones(system)
    assert {number: shown[number].get("pipedrive/id") for number in living} == {number: number for number in living}
    assert {number: shown[number].get("pipedrive/deleted_at") for number in living} == dict.fromkeys(living)
    theirs = {shown[number]["id"] for number in living}
    left = [shown[number] for number in known if number not in living and shown[number]["id"] not in theirs]
    assert [each.get("pipedrive/id") for each in left] == [None] * len(left)
    assert all(each.get("pipedrive/deleted_at") for each in left)
    assert is_finished(system)
