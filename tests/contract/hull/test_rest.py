"""The REST paths a connector uses, and the search."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.hull.sender import (
    CONNECTOR_ID,
    SECRET,
    Hull,
    Json,
    account_message,
    link_message,
    token,
    user_message,
)

ADA, BO, CYD = ({"email": f"{name}@acme.com"} for name in ("ada", "bo", "cyd"))
WRONG = {"Hull-App-Id": CONNECTOR_ID, "Hull-Access-Token": "wrong"}


def found(hull: Hull, query: Json, kind: str = "user", **more: Any) -> list[str | None]:
    """E-mails or domains of the reports a search gives."""
    answer = hull.call("POST", f"/api/v1/search/{kind}_reports", {"query": query, "raw": True, **more})
    return [report["email" if kind == "user" else "domain"] for report in answer["data"]]


def test_app_is_the_connector_without_its_secret(hull: Hull) -> None:
    app = hull.call("GET", "/api/v1/app")

    assert app["id"] == CONNECTOR_ID
    assert app["private_settings"] == {}
    assert "secret" not in app
    assert hull.call("GET", f"/api/v1/{CONNECTOR_ID}") == app


def test_without_credentials_the_app_is_not_found_and_the_rest_unauthorized(hull: Hull) -> None:
    assert hull.ask("GET", "/api/v1/app", headers=WRONG)[0] == 404
    for method, path in [
        ("GET", "/api/v1/users_segments"),
        ("PUT", f"/api/v1/{CONNECTOR_ID}"),
        ("POST", "/api/v1/search/user_reports"),
    ]:
        assert hull.ask(method, path, headers=WRONG)[0] == 401


def test_settings_are_replaced_whole(hull: Hull) -> None:
    hull.call("PUT", f"/api/v1/{CONNECTOR_ID}", {"private_settings": {"a": 1, "b": 2}})

    answer = hull.call(
        "PUT", f"/api/v1/{CONNECTOR_ID}", {"private_settings": {"b": 3}, "refresh_status": True, "secret": "stolen"}
    )

    assert answer["private_settings"] == {"b": 3}
    assert "refresh_status" not in answer
    assert hull.call("GET", "/api/v1/app") == answer
    assert hull.state.connector["secret"] == SECRET


@pytest.mark.parametrize("body", [{"private_settings": "none"}, {"private_settings": None}, [1]])
def test_settings_that_are_none_are_refused(hull: Hull, body: Any) -> None:
    assert hull.ask("PUT", f"/api/v1/{CONNECTOR_ID}", body)[0] == 400


def test_status_is_kept(hull: Hull) -> None:
    answer = hull.call("PUT", f"/api/v1/{CONNECTOR_ID}/status", {"status": "warning", "messages": ["slow"]})

    assert answer["status"] == {"status": "warning", "messages": ["slow"]}
    assert hull.ask("PUT", f"/api/v1/{CONNECTOR_ID}/status", {"status": "great"})[0] == 400
    assert hull.ask("PUT", "/api/v1/65f000000000000000000009/status", {"status": "ok"})[0] == 404


def test_reports_are_flat_and_a_user_carries_its_account(hull: Hull) -> None:
    hull.send(
        link_message(
            {**ADA, "anonymous_id": "pipedrive:1"}, {"domain": "acme.com"}, {"pipedrive/id": 44, "tier": "gold"}
        )
    )
    hull.send(user_message(ADA, {"pipedrive/id": 12, "plan": "pro", "first_name": "Ada"}))

    report = hull.call("GET", f"/api/v1/{hull.user(**ADA).id}")

    assert {name: report[name] for name in ("email", "domain", "anonymous_ids", "external_id", "segment_ids")} == {
        "email": "ada@acme.com", "domain": "acme.com", "anonymous_ids": ["pipedrive:1"], "external_id": None, "segment_ids": [],
    }  # fmt: skip
    assert (report["pipedrive/id"], report["traits_plan"], report["first_name"]) == (12, "pro", "Ada")
    assert report["account"] == hull.call("GET", f"/api/v1/{hull.account(domain='acme.com').id}")
    assert (report["account"]["pipedrive/id"], report["account"]["tier"]) == (44, "gold")
    assert hull.ask("GET", "/api/v1/5ee10000000000000000ffff")[0] == 404


def test_a_scoped_token_reads_its_own_report(hull: Hull) -> None:
    hull.send(user_message(ADA, {"pipedrive/id": 12}))
    scoped = {"Hull-App-Id": CONNECTOR_ID, "Hull-Access-Token": token(subjectType="user", asUser=ADA)}

    assert hull.call("GET", "/api/v1/me/user_report", headers=scoped)["pipedrive/id"] == 12
    assert hull.ask("GET", "/api/v1/me/user_report")[0] == 401
    assert hull.call("GET", "/api/v1/app", headers=scoped)["id"] == CONNECTOR_ID


def test_segments(hull: Hull) -> None:
    hull.send(user_message(ADA), account_message({"domain": "acme.com"}))
    ada, acme = hull.user(**ADA).id, hull.account(domain="acme.com").id
    leads = hull.call("POST", "/__sandbox__/segments", {"name": "Leads", "entity": "user", "ids": [ada]})
    targets = hull.call("POST", "/__sandbox__/segments", {"name": "Targets", "entity": "account", "ids": [acme]})

    assert (leads["type"], targets["type"]) == ("users_segment", "accounts_segment")
    assert (
        hull.call("GET", f"/api/v1/users_segments?shipId={CONNECTOR_ID}")
        == hull.call("GET", "/api/v1/segments")
        == [leads]
    )
    assert hull.call("GET", f"/api/v1/accounts_segments?shipId={CONNECTOR_ID}") == [targets]
    assert hull.call("GET", f"/api/v1/{acme}/segments") == [targets]
    assert hull.call("GET", f"/api/v1/{ada}")["segment_ids"] == [leads["id"]]
    assert found(hull, {"term": {"segment_ids": leads["id"]}}) == ["ada@acme.com"]


def test_schema_and_tree_name_what_was_written(hull: Hull) -> None:
    hull.send(
        user_message(
            ADA, {"pipedrive/id": 12, "plan": "pro", "won_at": 1, "object": {"a": 1}, "vip": True, "unknown": None}
        )
    )
    hull.send(account_message({"domain": "acme.com"}, {"pipedrive/id": 44}))

    types = {row["key"]: row["type"] for row in hull.call("GET", "/api/v1/users/schema")}
    expected = {"email": "string", "pipedrive/id": "number", "traits_plan": "string", "traits_won_at": "date"}
    assert types.items() >= (expected | {"traits_object": "json", "traits_vip": "boolean"}).items()
    assert "traits_unknown" not in types
    assert ("pipedrive/id", "number") in {
        (row["key"], row["type"]) for row in hull.call("GET", "/api/v1/accounts/schema")
    }

    tree = hull.call("GET", "/api/v1/search/user_reports/bootstrap")
    top, traits = tree["tree"]
    assert {"id": "email", "text": "email", "type": "string"} in top["children"]
    assert {"text": "pipedrive", "children": [{"id": "pipedrive/id", "text": "id", "type": "number"}]} in traits[
        "children"
    ]
    assert hull.call("GET", "/api/v1/search/account_reports/bootstrap")["tree"][0]["text"] == "Account"


def test_events_are_listed_by_name(hull: Hull) -> None:
    for number in range(2):
        hull.send(user_message(ADA, {"event": "Deal won", "properties": {"value": number}}, type_="track"))

    (event,) = hull.call("GET", "/api/v1/search/event/bootstrap")
    assert event == {"name": "Deal won", "properties": ["value"], "emitted": 2}


@pytest.fixture
def cast(hull: Hull) -> Hull:
    hull.send(
        user_message({**ADA, "external_id": "e1", "anonymous_id": "pipedrive:1"}, {"pipedrive/id": 1, "plan": "pro"}),
        user_message({**BO, "anonymous_id": "pipedrive:2"}, {"pipedrive/id": 2, "plan": "pro"}),
        link_message(CYD, {"domain": "globex.com", "anonymous_id": "pipedrive:44"}, {"pipedrive/id": 44}),
    )
    return hull


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"match_all": {}}, "ada bo cyd"),
        ({"term": {"email": "ADA@acme.com"}}, "ada"),
        ({"term": {"email.exact": "ada@acme.com"}}, "ada"),
        ({"term": {"contact_email.exact": "ada@acme.com"}}, "ada"),
        ({"term": {"external_id.raw": "e1"}}, "ada"),
        ({"term": {"anonymous_ids.raw": "pipedrive:2"}}, "bo"),
        ({"term": {"pipedrive/id": 2}}, "bo"),
        ({"term": {"pipedrive/id": "2"}}, "bo"),
        ({"term": {"traits_plan": {"value": "pro"}}}, "ada bo"),
        ({"term": {"domain": "acme.com"}}, "ada bo cyd"),
        ({"term": {"account.domain": "globex.com"}}, "cyd"),
        ({"terms": {"pipedrive/id": [1, 2, 3]}}, "ada bo"),
        ({"terms": {"anonymous_ids.raw": ["pipedrive:1", "pipedrive:9"]}}, "ada"),
        ({"range": {"pipedrive/id": {"gte": 2}}}, "bo"),
        ({"range": {"pipedrive/id": {"gt": 0, "lt": 2}}}, "ada"),
        ({"range": {"plan": {"lte": 9}}}, ""),
        ({"exists": {"field": "pipedrive/id"}}, "ada bo"),
        ({"exists": {"field": "account.pipedrive/id"}}, "cyd"),
        (
            {
                "bool": {
                    "filter": [
                        {
                            "bool": {
                                "should": [{"term": {"email": "bo@acme.com"}}, {"term": {"email.exact": "bo@acme.com"}}]
                            }
                        }
                    ]
                }
            },
            "bo",
        ),
        ({"bool": {"filter": {"term": {"plan": "pro"}}, "must": [{"term": {"pipedrive/id": 1}}]}}, "ada"),
        ({"bool": {"must_not": [{"term": {"plan": "pro"}}]}}, "cyd"),
        ({"bool": {"must_not": [{"match_all": {}}]}}, ""),
        ({"bool": {}}, "ada bo cyd"),
        ({"term": {"email": "nobody@acme.com"}}, ""),
    ],
)
def test_searches(cast: Hull, query: Json, names: str) -> None:
    assert found(cast, query) == [f"{name}@acme.com" for name in names.split()]


def test_accounts_are_searched_alike(cast: Hull) -> None:
    for query in (
        {"term": {"domain.exact": "www.globex.com"}},
        {"terms": {"pipedrive/id": [44]}},
        {"term": {"anonymous_ids.raw": "pipedrive:44"}},
    ):
        assert found(cast, query, "account") == ["globex.com"]


def test_a_search_sees_later_writes_merges_and_deletions(cast: Hull) -> None:
    query = {"term": {"pipedrive/id": 2}}
    assert found(cast, query) == ["bo@acme.com"]

    cast.send(user_message(CYD, {"pipedrive/id": 2}), user_message(BO, {"pipedrive/id": None}))
    assert found(cast, query) == ["cyd@acme.com"]

    cast.send(user_message({"external_id": "e9"}), user_message({**CYD, "external_id": "e9"}))
    assert found(cast, query) == [cast.user(external_id="e9").natural] == ["cyd@acme.com"]

    cast.send(user_message(CYD, type_="incinerate"))
    assert found(cast, query) == []


def test_pages_hold_50_at_most(hull: Hull) -> None:
    hull.send(*(user_message({"email": f"u{number:03}@acme.com"}, {"x": 1}) for number in range(120)))

    for query in ({"match_all": {}}, {"term": {"x": 1}}):
        pages = [
            hull.call("POST", "/api/v1/search/user_reports", {"query": query, "page": page, "per_page": 100})
            for page in (1, 2, 3, 4)
        ]
        assert [len(page["data"]) for page in pages] == [50, 50, 20, 0]
        assert pages[2]["pagination"] == {"total": 120, "page": 3, "pages": 3, "per_page": 50}
        assert [report["email"] for page in pages for report in page["data"]] == [
            f"u{number:03}@acme.com" for number in range(120)
        ]


@pytest.mark.parametrize(
    "search",
    [
        {"query": {"wildcard": {"email": "*"}}},
        {"query": {"term": {}}},
        {"query": {"terms": {"email": "a"}}},
        {"query": {"bool": {"either": []}}},
        {"query": {"range": {"pipedrive/id": {"about": 3}}}},
        {"query": {"range": {"pipedrive/id": {"gte": "a"}}}},
        {"query": {"exists": "email"}},
        {"query": ["term"]},
        {"page": 0},
        {"per_page": "many"},
    ],
)
def test_what_it_does_not_understand_it_refuses(hull: Hull, search: Json) -> None:
    assert hull.ask("POST", "/api/v1/search/user_reports", search)[0] == 400
