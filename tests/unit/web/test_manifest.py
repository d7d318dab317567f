"""The manifest tells of every setting there is, once, under its own name and with its own default."""

from __future__ import annotations

from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.web.manifest import SECTIONS, SETTINGS, manifest


def test_every_setting_is_described_and_none_that_does_not_exist() -> None:
    assert SETTINGS.keys() == ConnectorSettings.model_fields.keys()
    assert all(row["title"] and row["description"].endswith(".") for row in SETTINGS.values())


def test_every_setting_stands_in_one_section() -> None:
    placed = [name for _, names in SECTIONS for name in names]

    assert sorted(placed) == sorted(SETTINGS)


def test_the_defaults_it_names_are_those_in_force_without_settings() -> None:
    defaults = {row["name"]: row["default"] for row in manifest()["private_settings"] if row["name"] != "oauth"}

    assert read_settings(defaults) == ConnectorSettings()


def test_the_button_that_connects_leads_to_our_door() -> None:
    offered = manifest()

    assert [row["url"] for row in offered["private_settings"] if row.get("format") == "oauth"] == ["/auth"]
    assert offered["settings_sections"][0] == {"title": "Credentials", "properties": ["oauth"]}


def test_its_claims_offer_only_what_the_settings_accept() -> None:
    for row in manifest()["private_settings"]:
        if row.get("format") == "table":
            for claim in row["items"]["properties"]["hull"]["enum"]:
                read_settings({row["name"]: [{"hull": claim, "service": "name"}]})
