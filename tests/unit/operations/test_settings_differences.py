"""How two versions of the settings differ, in words; what is suggested to begin with; when schedules come due."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.domain.cron import cron_words, next_times, time_words
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.setting_texts import TEXTS
from pipeline.domain.settings import ConnectorSettings, SettingsRefused, read_settings
from pipeline.operations.fields import slug, suggest
from pipeline.operations.settings_differences import difference, short_row
from pipeline.operations.settings_editing import placed
from tests.unit.operations.test_conversions import CATALOG, TIER

CATALOGS = dict.fromkeys(Entity, CATALOG)
NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
SHIP = "5f0c0ffee5f0c0ffee5f0c0f"


def words(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [each.sentence for each in difference(read_settings(before), read_settings(after), CATALOGS)]


def test_every_setting_has_a_title() -> None:
    assert TEXTS.keys() == ConnectorSettings.model_fields.keys()


def test_rows_are_added_removed_and_changed_by_their_names() -> None:
    before = {"outgoing_user_attributes": [{"hull": "plan", "service": TIER}, {"hull": "name", "service": "name"}]}
    after = {
        "outgoing_user_attributes": [
            {"hull": "plan", "service": TIER, "on_null": "ignore", "owner": "pipedrive"},
            {"hull": "mail", "service": "email"},
        ]
    }

    assert words(before, after) == [
        "Outgoing user attributes: plan → Tier, when empty, clear → keep",
        "Outgoing user attributes: plan → Tier, owner, Hull → Pipedrive",
        "Outgoing user attributes: removed name → Name",
        "Outgoing user attributes: added mail → Email",
    ]


def test_single_values_are_described() -> None:
    after = {"link_users_in_hull": False, "daily_tokens": 0, "live_reserve": 0.5, "full_fetch_cron": ""}

    assert words({}, after) == [
        "Link Users to Accounts in Hull: on → off",
        "Schedule of full fetches: nightly → never",
        "Pipedrive's API tokens per day: 30,000 → no limit",
        "Share of tokens reserved for live changes: 20% → 50%",
    ]


def test_claims_and_segments_are_rows_as_well() -> None:
    after = {"user_claims": [{"hull": "external_id", "service": TIER}], "synchronized_user_segments": ["s1"]}

    assert words({}, after) == [
        "User identity: removed email ← Email",
        "User identity: added external_id ← Tier",
        "Outgoing user segments: added s1",
    ]


def test_another_spelling_is_no_change() -> None:
    rows = [{"hull": "a", "service": "name"}, {"hull": "b", "service": "email"}]

    assert words({}, {"link_users_in_hull": True}) == []
    assert words({"incoming_user_attributes": rows}, {"incoming_user_attributes": rows[::-1]}) == [
        "Incoming user attributes: one order → another order"
    ]


def test_a_mistake_is_put_in_its_place() -> None:
    row = placed("outgoing_user_attributes.3.service: Pipedrive has no Person field 'x'")
    whole = placed("full_fetch_cron: '61' is not five cron fields")
    unwritten = placed("user_claims.0.service: String should have at least 1 character")
    other = placed("colour: there is no such setting")

    assert (row.setting, row.position, row.words) == (
        "outgoing_user_attributes",
        3,
        "Pipedrive has no Person field 'x'",
    )
    assert (whole.setting, whole.position) == ("full_fetch_cron", None)
    assert unwritten.words == "choose a Pipedrive field"
    assert (other.setting, other.words) == ("", "colour: there is no such setting")


def test_a_mistake_in_a_row_names_its_key() -> None:
    with pytest.raises(SettingsRefused) as refused:
        read_settings({"incoming_user_attributes": [{"hull": "a", "service": "b"}, {"hull": "a", "pipedrive": "name"}]})

    found = [placed(each) for each in refused.value.mistakes]
    assert [(each.setting, each.position, each.words) for each in found] == [
        ("incoming_user_attributes", 1, "`service` is missing"),
        ("incoming_user_attributes", 1, "unknown key `pipedrive`"),
    ]


def test_what_is_default_is_left_out_of_a_row() -> None:
    whole = {"hull": "a", "service": "b", "on_null": "clear", "form": "default", "parts": [], "owner": "hull"}

    assert short_row(whole) == {"hull": "a", "service": "b"}
    assert short_row(whole | {"parts": ["country"]}) == {"hull": "a", "service": "b", "parts": ["country"]}


def test_suggestions_leave_out_what_is_mapped_or_not_there() -> None:
    found = suggest(Direction.INCOMING, CATALOG, [{"hull": "x", "service": "email"}])

    assert [(each.hull, each.field) for each in found if each.is_usual] == [
        ("first_name", "first_name"),
        ("last_name", "last_name"),
        ("pipedrive/name", "Name"),
        ("phone", "phone"),
        ("pipedrive/owner_id", "owner_id"),
        ("pipedrive/labels", "label_ids"),
        ("pipedrive/created_at", "Created"),
    ]
    assert ("pipedrive/tier", "Tier") in [(each.hull, each.field) for each in found if not each.is_usual]


def test_a_field_that_cannot_be_written_is_not_suggested_outwards() -> None:
    assert "add_time" not in [each.service for each in suggest(Direction.OUTGOING, CATALOG, [])]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Lead score (2)", "lead_score_2"),
        ("Größe", "groe"),
        ("<script>", "script"),
        ("日本", ""),
        ("x" * 300, "x" * 60),
    ],
)
def test_names_become_attributes(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_schedules_are_described_with_their_next_times() -> None:
    assert cron_words("15 2 * * *", SHIP) == "every night at 02:15 UTC"
    assert cron_words("0 14 * * 1", SHIP) == "Mondays at 14:00 UTC"
    assert cron_words("*/5 * * * *", SHIP) == "by */5 * * * *"
    assert cron_words("", SHIP) == "never"
    assert cron_words("nightly", SHIP).startswith("every night at 0")
    times = next_times("15 2 * * *", SHIP, NOON)
    assert [f"{each:%d %H:%M}" for each in times] == ["04 02:15", "05 02:15", "06 02:15"]
    assert [time_words(each, NOON) for each in times[:2]] == [
        "tomorrow at 02:15 UTC",
        "Thursday 5 November at 02:15 UTC",
    ]


@pytest.mark.parametrize("cron", ["", "61 * * * *", "nonsense", "* *", "0 0 31 2 *"])
def test_what_never_comes_due_has_no_next_time(cron: str) -> None:
    assert next_times(cron, SHIP, NOON) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("link_users_in_hul", "link_users_in_hul: there is no such setting; did you mean link_users_in_hull?"),
        ("zzz", "zzz: there is no such setting"),
    ],
)
def test_an_unknown_setting_is_named(name: str, message: str) -> None:
    with pytest.raises(SettingsRefused) as refused:
        read_settings({name: True})

    assert refused.value.mistakes == [message]
