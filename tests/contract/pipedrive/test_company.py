"""The generated company: the same for the same seed, believable, holding what trips clients up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.company import Company, Shares
from sandbox.company.fields import CREATABLE_TYPES
from tests.contract.pipedrive.conftest import NOW, Api, Clock, code

MANY = 4000


@pytest.fixture(scope="module")
def crowd() -> list[dict[str, Any]]:
    company = Company(seed=5, persons=MANY, organizations=MANY // 4, now=NOW)
    return [json.loads(body) for body in company.export("person")]


@pytest.fixture(scope="module")
def firms() -> list[dict[str, Any]]:
    company = Company(seed=5, persons=0, organizations=MANY, now=NOW)
    return [json.loads(body) for body in company.export("organization")]


def lines(**options: Any) -> Iterator[bytes]:
    company = Company(now=NOW, **options)
    yield from company.export("organization")
    yield from company.export("person")


def test_the_same_seed_makes_the_same_company() -> None:
    assert list(lines(seed=5, persons=50, organizations=20)) == list(lines(seed=5, persons=50, organizations=20))
    assert list(lines(seed=5, persons=50, organizations=20)) != list(lines(seed=6, persons=50, organizations=20))


def test_another_process_makes_it_too() -> None:
    script = (
        "import sys, datetime; from sandbox.company import Company;"
        f"c = Company(seed=5, persons=50, organizations=20, now=datetime.datetime.fromisoformat({NOW.isoformat()!r}));"
        "sys.stdout.buffer.write(b'\\n'.join([*c.export('organization'), *c.export('person')]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    assert done.stdout.splitlines() == list(lines(seed=5, persons=50, organizations=20))


def test_custom_fields_cover_every_type_that_can_be_created(company: Company) -> None:
    assert {field.type for field in company.custom_fields("person")} == set(CREATABLE_TYPES)
    assert {field.type for field in company.custom_fields("organization")} == set(CREATABLE_TYPES)


def test_every_custom_field_is_filled_somewhere_and_empty_somewhere(crowd: list[dict[str, Any]]) -> None:
    filled: Counter[str] = Counter()
    for person in crowd:
        filled.update(name for name, value in person["custom_fields"].items() if value is not None)

    assert set(filled) == set(crowd[0]["custom_fields"])
    assert sum(number < len(crowd) for number in filled.values()) >= len(filled) - 1  # all but the customer number


def test_options_in_records_are_options_of_the_field(crowd: list[dict[str, Any]]) -> None:
    company = Company(seed=5, persons=0, organizations=0)
    for field in company.custom_fields("person"):
        if field.options:
            used = [value for person in crowd if (value := person["custom_fields"][field.code]) is not None]
            chosen = {option for value in used for option in (value if isinstance(value, list) else [value])}
            assert chosen == field.option_ids()


def test_people_are_as_mixed_as_they_should_be(crowd: list[dict[str, Any]]) -> None:
    shares = Shares()

    def share(which: list[bool]) -> float:
        return sum(which) / len(crowd)

    primaries = Counter(email["value"].lower() for p in crowd for email in p["emails"] if email["primary"])
    assert share([not p["emails"] for p in crowd]) == pytest.approx(shares.no_email, abs=0.015)
    assert share([len(p["emails"]) > 1 for p in crowd]) == pytest.approx(shares.several_emails, abs=0.02)
    assert share([len(p["phones"]) > 1 for p in crowd]) == pytest.approx(shares.several_phones, abs=0.02)
    assert share([p["org_id"] is None for p in crowd]) == pytest.approx(shares.no_organization, abs=0.03)
    assert 1 - len(crowd) / MANY == pytest.approx(shares.deleted, abs=0.006)
    assert sum(number - 1 for number in primaries.values()) / len(crowd) == pytest.approx(0.01, abs=0.006)
    assert share([ord(max(p["name"])) > 0x300 for p in crowd]) == pytest.approx(shares.non_latin, abs=0.02)


def test_the_primary_address_is_not_always_the_first(crowd: list[dict[str, Any]]) -> None:
    several = [p["emails"] for p in crowd if len(p["emails"]) > 1]

    assert all([email["primary"] for email in emails].index(True) > 0 for emails in several)
    assert all(sum(email["primary"] for email in p["emails"]) == 1 for p in crowd if p["emails"])


def test_hostile_strings_are_among_them() -> None:
    company = Company(seed=5, persons=500, organizations=200, now=NOW, shares=Shares(hostile=0.5))
    persons = {json.loads(body)["name"] for body in company.export("person")}
    organizations = {json.loads(body)["name"] for body in company.export("organization")}

    assert "<script>alert(1)</script> Doe" in persons
    assert "{{7*7}} ${7*7}" in persons
    assert any("\u202e" in name for name in persons)
    assert any("\u200b" in name for name in persons)
    assert any("👩🏽‍🚀" in name for name in persons)
    assert max(map(len, persons)) > 200
    assert any("<script>" in name for name in organizations)


def test_references_point_at_live_records(crowd: list[dict[str, Any]]) -> None:
    company = Company(seed=5, persons=MANY, organizations=MANY // 4, now=NOW)
    users = {user.id for user in company.users}

    assert {person["owner_id"] for person in crowd} == users
    assert all(company.body("organization", org_id) for org_id in {p["org_id"] for p in crowd if p["org_id"]})


def test_times_are_whole_seconds_of_the_past_two_years(crowd: list[dict[str, Any]]) -> None:
    assert all("2024-03-01T12:00:00Z" <= p["add_time"] <= p["update_time"] <= "2026-03-01T12:00:00Z" for p in crowd)
    assert all(len(p["update_time"]) == 20 for p in crowd)
    assert len({p["update_time"] for p in crowd}) > MANY * 0.9


def test_organizations_have_domains_or_not(firms: list[dict[str, Any]]) -> None:
    websites = [firm["website"] for firm in firms]
    hosts = Counter(
        firm["website"].lower().split("//")[-1].split("/")[0].split(":")[0] for firm in firms if firm["website"]
    )
    bare = Counter(host.removeprefix("www.").removeprefix("shop.") for host in hosts.elements())

    assert sum(website is None for website in websites) / len(firms) == pytest.approx(0.1, abs=0.02)
    assert any(number > 1 for number in bare.values())
    assert any(website and "://" not in website for website in websites)
    assert any("." in firm["name"] and " " not in firm["name"] for firm in firms)


def test_records_weigh_about_two_kilobytes() -> None:
    bodies = list(lines(seed=5, persons=2000, organizations=500))

    assert 1500 < sum(map(len, bodies)) / len(bodies) < 2600


def test_a_field_made_later_appears_everywhere_and_a_deleted_one_nowhere(api: Api, company: Company) -> None:
    gone = code(company, "person", "Job title")

    made = api.ok("POST", "/api/v2/personFields", {"field_name": "Shoe size", "field_type": "double"})["field_code"]
    api.ok("DELETE", f"/api/v2/personFields/{gone}")

    persons = api.walk("/api/v2/persons", limit=500)
    assert all(made in person["custom_fields"] and gone not in person["custom_fields"] for person in persons)
    assert api.call("PATCH", "/api/v2/persons/1", {"custom_fields": {gone: "x"}}).status_code == 400
    assert api.ok("PATCH", "/api/v2/persons/1", {"custom_fields": {made: 44}})["custom_fields"][made] == 44


def test_a_field_made_again_is_another_field(api: Api) -> None:
    body = {"field_name": "Shoe size", "field_type": "double"}
    first = api.ok("POST", "/api/v2/personFields", body)["field_code"]
    api.ok("DELETE", f"/api/v2/personFields/{first}")

    assert api.ok("POST", "/api/v2/personFields", body)["field_code"] != first


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": None, "emails": "none", "custom_fields": []},
        {"id": 901, "name": "\x00 and \ud800"},
        {"id": "text", "name": 5, "org_id": "Acme", "update_time": "soon"},
        {"id": 902, "name": "x" * 1_000_000},
        {},
    ],
)
def test_a_malformed_record_is_listed_as_it_is(api: Api, company: Company, wrong: dict[str, Any]) -> None:
    record_id = company.put_raw("person", wrong)

    listed = api.walk("/api/v2/persons", limit=500)
    assert listed[-1] == wrong
    assert api.ok("GET", f"/api/v2/persons/{record_id}") == wrong
    found = api.call("GET", "/api/v2/persons/search", term="an")
    assert found.status_code == 200


def test_a_malformed_record_can_be_fixed(api: Api, company: Company) -> None:
    record_id = company.put_raw("person", {"name": "\ud800", "custom_fields": "none"})

    fixed = api.ok(
        "PATCH", f"/api/v2/persons/{record_id}", {"custom_fields": {code(company, "person", "Job title"): "x"}}
    )

    assert fixed["custom_fields"] == {code(company, "person", "Job title"): "x"}


def test_a_raw_body_may_come_over_the_wire(api: Api) -> None:
    sent = b'{"name":"\\ud800","emails":[null],"custom_fields":{"no such code":1}}'
    answer = api.client.post("/__sandbox__/raw?entity=person", data=sent)

    record_id = answer.get_json()["data"]["id"]
    assert sent in api.call("GET", f"/api/v2/persons/{record_id}").get_data()


def test_changes_are_sent_to_listeners(company: Company, clock: Clock) -> None:
    events = []
    company.listeners.append(events.append)

    created = company.create_person(name="Jane Doe")
    company.edit_person(created["id"], name="Jane Roe")
    company.delete_person(created["id"])

    assert [(event.action, event.source) for event in events] == [
        ("create", "api"),
        ("change", "app"),
        ("delete", "app"),
    ]
    assert [event.before and event.before["name"] for event in events] == [None, "Jane Doe", "Jane Roe"]
    assert [event.after and event.after["name"] for event in events] == ["Jane Doe", "Jane Roe", None]


@pytest.mark.slow
def test_a_million_persons_fit_in_memory() -> None:
    script = (
        "from sandbox.company import Company, PageQuery;"
        "c = Company(persons=1_000_000, organizations=200_000);"
        "rows, bodies = c.page('person', PageQuery(limit=500, after=(900_000, 900_000)));"
        # Not ru_maxrss, which a child has from the process that started it.
        "used_kb = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "print(used_kb, len(bodies), rows[0].id)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)

    used_kb, listed, first = map(int, done.stdout.split())
    assert (listed, first > 900_000) == (500, True)
    assert used_kb < 300_000
