"""An event always has the same key, and different events have different keys."""

from __future__ import annotations

import pytest

from pipeline.sync.connectors.webhooks import clean_key, delivery_key

META = {"action": "change", "entity": "person", "entity_id": "8", "timestamp": "2026-02-01T09:30:00.616Z"}


def test_an_event_id_is_the_key() -> None:
    assert delivery_key({"meta": {**META, "id": "7c81"}, "data": {}}, b"whatever") == "7c81"


def test_what_names_no_event_is_known_by_its_bytes() -> None:
    same = [delivery_key(payload, b"{}") for payload in ({}, None, {"meta": {"entity": "deal", "action": "create"}})]

    assert len(set(same)) == 1
    assert delivery_key({}, b"{ }") not in same


@pytest.mark.parametrize("given", ["", "ü", "a\x00", "a\n", "\udc80", "x" * 256])
def test_a_key_that_cannot_be_kept_becomes_a_digest(given: str) -> None:
    key = clean_key(given)

    assert len(key) == 32
    assert key != clean_key(given + "1")


@pytest.mark.parametrize("given", ["7c812ffd-8f50-45ea", "x" * 255])
def test_a_key_that_can_be_kept_stays_itself(given: str) -> None:
    assert clean_key(given) == given
