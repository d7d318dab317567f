"""Real records in a company."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.company import Company
from sandbox.company.load import load_jsonl
from sandbox.pipedrive.app import create_app
from sandbox.pipedrive.start import make_app
from tests.contract.pipedrive.conftest import NOW, Api, code
from tests.data import ORGANIZATIONS

LINE = {
    "name": "Universität Musterstadt",
    "domains": ["muster.example", "uni.muster.example"],
    "web_pages": ["https://www.muster.example/", "https://uni.muster.example/"],
    "country": "Germany",
    "alpha_two_code": "DE",
    "state_province": "Bayern",
}


@pytest.fixture
def empty() -> Company:
    return Company(persons=0, organizations=0, now=NOW)


def written(folder: Path, *lines: Any) -> Path:
    file = folder / "records.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n", encoding="utf-8")
    return file


def test_a_listed_organization_finds_its_places(empty: Company, tmp_path: Path) -> None:
    assert load_jsonl(empty, written(tmp_path, LINE)) == 1

    [organization] = Api(create_app(empty).test_client()).walk("/api/v2/organizations")
    assert organization["name"] == "Universität Musterstadt"
    assert organization["website"] == "https://www.muster.example/"
    assert organization["address"]["value"] == "Bayern, Germany"
    assert organization["address"]["country"] == "Germany"
    custom = organization["custom_fields"]
    assert custom[code(empty, "organization", "Domains")] == "muster.example, uni.muster.example"
    assert custom[code(empty, "organization", "Country code")] == "DE"
    assert len(custom) == len(empty.custom_fields("organization"))


def test_a_line_may_lack_nearly_everything(empty: Company, tmp_path: Path) -> None:
    bare = {"name": "Bare", "domains": [], "web_pages": [], "country": None, "alpha_two_code": None}

    load_jsonl(empty, written(tmp_path, bare))

    organization = empty.record("organization", 1)
    assert organization is not None
    assert (organization["website"], organization["address"]) == (None, None)


def test_without_the_website_field_only_the_domains_are_kept(tmp_path: Path) -> None:
    company = Company(persons=0, organizations=0, firmographics=False)

    load_jsonl(company, written(tmp_path, LINE))

    organization = company.record("organization", 1)
    assert organization is not None
    assert "website" not in organization
    assert organization["custom_fields"][code(company, "organization", "Domains")].startswith("muster.example")


def test_records_in_the_api_shape_keep_ids_and_times(empty: Company, tmp_path: Path) -> None:
    title = code(empty, "person", "Job title")
    person = {
        "id": 77,
        "name": "Jane Doe",
        "emails": [{"value": "jane@acme.test", "primary": True, "label": "work"}],
        "update_time": "2020-01-01T00:00:00Z",
        "custom_fields": {title: "Captain"},
    }
    organization = {"name": "Acme", "website": "acme.test"}

    assert load_jsonl(empty, written(tmp_path, person, organization)) == 2

    held = empty.record("person", 77)
    assert held is not None
    assert {**held, **person, "custom_fields": held["custom_fields"]} == held
    assert held["custom_fields"][title] == "Captain"
    assert empty.create_person(name="Next")["id"] == 78
    assert empty.record("organization", 1)["website"] == "acme.test"  # type: ignore[index]


def test_loaded_records_join_the_generated_ones(tmp_path: Path) -> None:
    company = Company(persons=0, organizations=10)

    load_jsonl(company, written(tmp_path, LINE))

    assert company.record("organization", 11)["name"] == LINE["name"]  # type: ignore[index]


@pytest.mark.parametrize("line", ["{", "[]", '{"title": "x"}'])
def test_a_line_that_is_no_record_is_named(empty: Company, tmp_path: Path, line: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(LINE) + "\n" + line + "\n")

    with pytest.raises(ValueError, match="line 2"):
        load_jsonl(empty, file)


def test_real_organizations(empty: Company) -> None:
    lines = [json.loads(line) for line in ORGANIZATIONS.read_text(encoding="utf-8").splitlines()]

    assert load_jsonl(empty, ORGANIZATIONS) == len(lines)

    walked = Api(create_app(empty).test_client()).walk("/api/v2/organizations", limit=500)
    assert [organization["name"] for organization in walked] == [line["name"] for line in lines]
    assert [organization["website"] for organization in walked] == [line["web_pages"][0] for line in lines]


def test_an_app_is_made_from_plain_options(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('[{"path": "persons", "kind": "html"}]')
    records = str(written(tmp_path, LINE))

    app = make_app(persons=5, organizations=0, load=records, faults=str(faults), api_token="t", burst_limit=2)

    api = Api(app.test_client(), {"x-api-token": "t"})
    assert len(api.walk("/api/v2/organizations")) == 1
    assert [api.call("GET", "/api/v2/persons").status_code for _ in range(2)] == [403, 429]
    with pytest.raises(TypeError, match="shoe_size"):
        make_app(shoe_size=44)
