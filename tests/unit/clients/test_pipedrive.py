"""The Pipedrive client sends requests as documented by Pipedrive, and reads the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from pipeline.clients.http_transport import Exchange
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.clients.pipedrive_calls import longest_s
from pipeline.domain.budget import TOKEN_COSTS
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import MAX_IDS
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable
from tests.data import openapi
from tests.unit.clients.canned import HTML, LOST, Answer, CannedApp, data, json_answer
from tests.wsgi_adapter import session_for

ORIGIN = "https://acme.pipedrive.com"
PERSON = {"id": 7, "name": "Ada Byron"}


def client(app: CannedApp, **options: Any) -> PipedriveClient:
    auth = options.pop("auth", {"x-api-token": "t0ken"})
    return PipedriveClient(session_for({ORIGIN: app}), base_url=ORIGIN, auth=auth, **options)


def test_a_page_holds_the_body_its_records_and_the_next_cursor() -> None:
    app = CannedApp(data([PERSON], cursor="eyJ"))

    page = client(app).list_page(Entity.PERSON)

    assert page.records == [PERSON]
    assert page.next_cursor == "eyJ"
    assert page.body == app.answers[0].body
    assert (app.asked[0].path, app.asked[0].query) == (
        "/api/v2/persons",
        {"limit": "500", "sort_by": "id", "sort_direction": "asc"},
    )
    assert app.asked[0].headers["x-api-token"] == "t0ken"


def test_a_list_carries_window_sort_ids_and_cursor() -> None:
    app = CannedApp(data([]))
    local = timezone(timedelta(hours=2))

    client(app).list_page(
        Entity.ORGANIZATION,
        cursor="a/b+c=",
        limit=100,
        ids=[3, 1, 2],
        updated_since=datetime(2026, 11, 23, 14, 0, 0, 999_999, tzinfo=UTC),
        updated_until=datetime(2026, 11, 23, 17, 30, tzinfo=local),
        sort_by="update_time",
        sort_direction="desc",
        include_fields=["people_count", "files_count"],
    )

    assert app.asked[0].path == "/api/v2/organizations"
    assert app.asked[0].query == {
        "cursor": "a/b+c=",
        "limit": "100",
        "ids": "3,1,2",
        "updated_since": "2026-11-23T14:00:00Z",
        "updated_until": "2026-11-23T15:30:00Z",
        "sort_by": "update_time",
        "sort_direction": "desc",
        "include_fields": "people_count,files_count",
    }


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        client(CannedApp(data([]))).list_page(Entity.PERSON, updated_since=datetime(2026, 1, 1))  # noqa: DTZ001 - the point


def test_more_ids_than_pipedrive_reads_are_refused() -> None:
    app = CannedApp(data([]))

    with pytest.raises(ValueError, match="100 ids"):
        client(app).list_page(Entity.PERSON, ids=range(MAX_IDS + 1))

    assert app.asked == []


@pytest.mark.defect(1, "A page that did not say whether more follow was fetched for ever.")
@pytest.mark.parametrize("more", [None, {}, {"next_cursor": None}, {"next_cursor": ""}, "absent"])
def test_every_known_way_to_end_a_list_ends_it(more: Any) -> None:
    answer = {"success": True, "data": []} | ({} if more == "absent" else {"additional_data": more})

    assert client(CannedApp(json_answer(answer))).list_page(Entity.PERSON).next_cursor is None


@pytest.mark.parametrize(
    "answer",
    [
        {"success": True, "data": None},
        {"success": True, "data": {}},
        {"success": True},
        [],
        "text",
        {"data": [], "additional_data": {"next_cursor": 5}},
        {"data": [], "additional_data": "more"},
        {"data": [], "additional_data": [1]},
    ],
)
def test_an_answer_that_is_no_page_is_malformed(answer: Any) -> None:
    with pytest.raises(Retryable) as caught:
        client(CannedApp(json_answer(answer))).list_page(Entity.PERSON)

    assert caught.value.reason == "page_malformed"


CALLS: list[tuple[str, str, str, Callable[[PipedriveClient], object], Any]] = [
    ("list", "GET", "/api/v2/persons", lambda c: c.list_page(Entity.PERSON), []),
    ("get", "GET", "/api/v2/persons/7", lambda c: c.get(Entity.PERSON, 7), PERSON),
    ("create", "POST", "/api/v2/persons", lambda c: c.create(Entity.PERSON, {"name": "A"}), PERSON),
    ("update", "PATCH", "/api/v2/organizations/7", lambda c: c.update(Entity.ORGANIZATION, 7, {"name": "A"}), PERSON),
    ("delete", "DELETE", "/api/v2/persons/7", lambda c: c.delete(Entity.PERSON, 7), {"id": 7}),
    ("search", "GET", "/api/v2/persons/search", lambda c: c.search(Entity.PERSON, "a@b.co"), {"items": []}),
    ("fields", "GET", "/api/v2/personFields", lambda c: c.fields(Entity.PERSON), []),
    ("fields", "GET", "/api/v2/organizationFields", lambda c: c.fields(Entity.ORGANIZATION), []),
    ("me", "GET", "/api/v1/users/me", lambda c: c.me(), {"id": 1}),
    ("webhooks", "GET", "/api/v1/webhooks", lambda c: c.webhooks(), []),
    ("create_webhook", "POST", "/api/v1/webhooks", lambda c: c.create_webhook({"name": "x"}), {"id": 1}),
    ("delete_webhook", "DELETE", "/api/v1/webhooks/77", lambda c: c.delete_webhook("77"), None),
]


@pytest.mark.parametrize(("operation", "method", "path", "call", "value"), CALLS)
def test_every_call_has_its_path_and_its_tokens(
    operation: str, method: str, path: str, call: Callable[[PipedriveClient], object], value: Any
) -> None:
    app = CannedApp(data(value))
    seen: list[Exchange] = []

    call(client(app, on_call=seen.append))

    assert (app.asked[0].method, app.asked[0].path) == (method, path)
    assert [(exchange.method, exchange.path, exchange.tokens) for exchange in seen] == [
        (method, path, TOKEN_COSTS[operation])
    ]


@pytest.mark.parametrize(("operation", "method", "path"), [case[:3] for case in CALLS])
def test_pipedrives_own_description_knows_every_call_and_its_price(operation: str, method: str, path: str) -> None:
    version, _, tail = path.removeprefix("/api/").partition("/")
    template = "/" + tail.replace("/77", "/{id}").replace("/7", "/{id}")

    described = openapi(int(version[1:]))["paths"][template][method.lower()]

    assert int(described["x-token-cost"]) == TOKEN_COSTS[operation]


def test_pipedrives_own_description_knows_every_parameter() -> None:
    app = CannedApp(data([]))
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    client(app).list_page(
        Entity.PERSON, cursor="c", ids=[1], updated_since=moment, updated_until=moment, include_fields=["files_count"]
    )
    app.answers = [data({"items": []})]
    client(app).search(Entity.PERSON, "a@b.co")

    for asked, path in zip(app.asked, ("/persons", "/persons/search"), strict=True):
        known = {parameter["name"] for parameter in openapi(2)["paths"][path]["get"]["parameters"]}
        assert set(asked.query) <= known


def test_a_write_is_json_and_returns_the_record() -> None:
    app = CannedApp(json_answer({"success": True, "data": PERSON}, 201))
    values = {"name": "Ada", "custom_fields": {"f" * 40: None}}

    assert client(app).create(Entity.PERSON, values) == PERSON

    assert app.asked[0].json == values
    assert app.asked[0].headers["content-type"] == "application/json"


def test_text_that_cannot_be_written_is_the_records_fault() -> None:
    with pytest.raises(Rejected) as caught:
        client(CannedApp(data(PERSON))).update(Entity.PERSON, 7, {"name": "half \ud800"})

    assert caught.value.reason == "unusable_text"
    assert caught.value.__context__ is None


def test_a_search_is_exact_and_returns_the_items() -> None:
    item = {"id": 7, "type": "person", "emails": ["ann+tag@x.com"]}
    app = CannedApp(data({"items": [{"result_score": 0.5, "item": item}, {"result_score": 0.1}]}))

    assert client(app).search(Entity.PERSON, "ann+tag@x.com") == [item]

    assert app.asked[0].query == {"term": "ann+tag@x.com", "fields": "email", "exact_match": "true", "limit": "100"}


@pytest.mark.parametrize("answer", [None, [], {"items": None}, {"items": ["x"]}])
def test_a_search_without_items_is_not_a_miss(answer: Any) -> None:
    with pytest.raises(Retryable) as caught:
        client(CannedApp(data(answer))).search(Entity.ORGANIZATION, "Acme")

    assert caught.value.reason == "page_malformed"


def test_fields_are_read_to_the_last_page() -> None:
    app = CannedApp(data([{"field_code": "a"}], cursor="2"), data([{"field_code": "b"}], cursor="3"), data([]))

    assert [row["field_code"] for row in client(app).fields(Entity.PERSON)] == ["a", "b"]

    assert [asked.query.get("cursor") for asked in app.asked] == [None, "2", "3"]


def test_fields_that_never_end_are_an_error() -> None:
    with pytest.raises(Retryable) as caught:
        client(CannedApp(data([{}], cursor="same"))).fields(Entity.PERSON)

    assert caught.value.reason == "page_repeats"


def test_no_webhooks_may_be_null() -> None:
    assert client(CannedApp(json_answer({"status": "ok", "success": True, "data": None}))).webhooks() == []


def test_credentials_may_come_from_a_callable() -> None:
    app = CannedApp(data(PERSON))

    client(app, auth=lambda: {"Authorization": "Bearer fresh"}).get(Entity.PERSON, 7)

    assert app.asked[0].headers["authorization"] == "Bearer fresh"


def test_a_401_is_tried_once_more_with_renewed_credentials() -> None:
    app = CannedApp(json_answer({}, 401), data(PERSON))
    refused: list[Mapping[str, str]] = []

    def renew(old: Mapping[str, str]) -> Mapping[str, str]:
        refused.append(old)
        return {"Authorization": "Bearer new"}

    found = client(app, auth={"Authorization": "Bearer old"}, renew=renew).get(Entity.PERSON, 7)

    assert found == PERSON
    assert refused == [{"Authorization": "Bearer old"}]
    assert [asked.headers["authorization"] for asked in app.asked] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize("renewed", [None, {"Authorization": "Bearer new"}])
def test_a_401_that_stays_needs_a_person(renewed: Mapping[str, str] | None) -> None:
    app = CannedApp(json_answer({"success": False, "error": "unauthorized access", "errorCode": 401}, 401))

    with pytest.raises(ConfigurationError) as caught:
        client(app, renew=lambda _: renewed).get(Entity.PERSON, 7)

    assert caught.value.reason == "unauthorized"
    assert len(app.asked) == (2 if renewed else 1)


class Turns:
    """Replaces the shared limiter, and records its calls."""

    def __init__(self) -> None:
        self.exchange: list[tuple[Any, ...]] = []

    def acquire(self, bucket: str = "api") -> None:
        self.exchange.append(("acquire", bucket))

    def observe(self, bucket: str, rates: tuple[int, int] | None, duration_s: float) -> None:
        self.exchange.append(("observe", bucket, rates))

    def pause(self, bucket: str, seconds: float) -> None:
        self.exchange.append(("pause", bucket, seconds))

    def refused(self, bucket: str, asked_s: float, took_s: float) -> float:
        self.exchange.append(("pause", bucket, asked_s))
        return asked_s

    def served(self, _bucket: str) -> None:
        return


def test_every_call_waits_for_its_slot_and_reports_its_headers() -> None:
    turns = Turns()
    app = CannedApp(json_answer({"data": {"items": []}}, x_ratelimit_limit="10", x_ratelimit_remaining="9"))

    client(app, limiter=turns).search(Entity.PERSON, "a@b.co")

    assert turns.exchange == [("acquire", "search"), ("observe", "search", (10, 9))]


@pytest.mark.parametrize(
    ("answer", "reason", "seconds"),
    [
        (json_answer({}, 429, retry_after="3", x_ratelimit_remaining="0", x_ratelimit_limit="80"), "rate_limited", 3),
        (HTML, "html_answer", 60),
    ],
)
def test_a_refusal_for_haste_holds_back_every_worker(answer: Answer, reason: str, seconds: float) -> None:
    turns = Turns()

    with pytest.raises(Retryable) as caught:
        client(CannedApp(answer), limiter=turns).list_page(Entity.PERSON)

    assert caught.value.reason == reason
    assert turns.exchange[-1] == ("pause", "api", seconds)


def test_a_spent_day_is_the_budgets_business_and_no_reason_to_hold_back_a_burst() -> None:
    turns = Turns()
    day = {"x_daily_ratelimit_token_limit": "30000", "x_daily_ratelimit_token_remaining": "0"}
    answer = json_answer({}, 429, x_ratelimit_remaining="40", x_ratelimit_limit="80", **day)

    with pytest.raises(Retryable) as caught:
        client(CannedApp(answer), limiter=turns).list_page(Entity.PERSON)

    assert (caught.value.reason, caught.value.retry_after_s) == ("daily_budget_spent", 1800)
    assert [exchange[0] for exchange in turns.exchange] == ["acquire", "observe"]


def test_a_refusal_for_missing_rights_pauses_no_call() -> None:
    turns = Turns()

    with pytest.raises(ConfigurationError):
        client(CannedApp(json_answer({"error": "Scope and URL mismatch"}, 403)), limiter=turns).list_page(Entity.PERSON)

    assert [exchange[0] for exchange in turns.exchange] == ["acquire", "observe"]


CANARIES = ("t0ken", "ada@acme.test", "Ada Byron", "Countess")


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"error": "t0ken ada@acme.test Ada Byron 'Countess' is wrong"}, 400),
        json_answer({"error": "t0ken is refused", "error_info": "Ada Byron"}, 401),
        json_answer({"message": "Ada Byron of t0ken"}, 403),
        json_answer({"errors": {"name": ["Ada Byron", "Countess"]}}, 422),
        HTML,
        Answer(status=503, body=b"<html>t0ken Ada Byron</html>"),
        Answer(body=b'{"data": "Ada Byron", t0ken'),
        Answer(body=b'{"data": "Ada Byron"}'),
        LOST,
    ],
)
def test_no_error_and_no_exchange_contains_a_secret_or_a_value(answer: Answer) -> None:
    seen: list[Exchange] = []
    pipedrive = client(CannedApp(answer), auth={"Authorization": "Bearer t0ken"}, on_call=seen.append)

    with pytest.raises(PipelineError) as caught:
        pipedrive.create(Entity.PERSON, {"name": "Ada Byron", "job": [{"title": "Countess"}], "mail": "ada@acme.test"})

    _assert_discreet(caught.value, repr(pipedrive), repr(seen))


def test_a_failed_search_does_not_show_its_term() -> None:
    seen: list[Exchange] = []
    pipedrive = client(CannedApp(json_answer({"error": "no Ada Byron for t0ken"}, 400)), on_call=seen.append)

    with pytest.raises(Rejected) as caught:
        pipedrive.search(Entity.ORGANIZATION, "Ada Byron")

    assert "no … for …" in caught.value.detail
    _assert_discreet(caught.value, repr(pipedrive), repr(seen))


def _assert_discreet(error: BaseException, *shown: str) -> None:
    text = "\n".join([*shown, str(error), repr(error)])
    assert error.__context__ is None, "a chained cause would be printed with the traceback"
    assert not [canary for canary in CANARIES if canary in text]


CALLS: list[tuple[str, Callable[[PipedriveClient], Any]]] = [
    ("get", lambda pipedrive: pipedrive.get(Entity.PERSON, 1)),
    ("update", lambda pipedrive: pipedrive.update(Entity.PERSON, 1, {})),
    ("delete", lambda pipedrive: pipedrive.delete(Entity.PERSON, 1)),
    ("delete_webhook", lambda pipedrive: pipedrive.delete_webhook(1)),
    ("list", lambda pipedrive: pipedrive.list_page(Entity.PERSON)),
    ("search", lambda pipedrive: pipedrive.search(Entity.PERSON, "ada")),
    ("fields", lambda pipedrive: pipedrive.fields(Entity.PERSON)),
    ("create", lambda pipedrive: pipedrive.create(Entity.PERSON, {})),
    ("me", lambda pipedrive: pipedrive.me()),
    ("webhooks", lambda pipedrive: pipedrive.webhooks()),
    ("create_webhook", lambda pipedrive: pipedrive.create_webhook({})),
]


@pytest.mark.parametrize(("operation", "call"), CALLS, ids=[name for name, _ in CALLS])
@pytest.mark.parametrize("status", [404, 410])
def test_only_a_call_that_names_one_record_learns_that_it_is_gone(
    operation: str, call: Callable[[PipedriveClient], Any], status: int
) -> None:
    with pytest.raises(PipelineError) as caught:
        call(client(CannedApp(json_answer({"success": False, "error": "Entity was not found"}, status))))

    assert set(TOKEN_COSTS) == {name for name, _ in CALLS}
    is_gone = operation in {"get", "update", "delete", "delete_webhook"}
    assert caught.value.reason == ("gone" if is_gone else "remote_unavailable")
    assert isinstance(caught.value, Rejected if is_gone else Retryable)


@pytest.mark.parametrize(
    ("operation", "query", "seconds"),
    [
        ("get", {}, 15.0),
        ("list", {"ids": "7", "limit": 500}, 15.21),
        ("list", {"ids": ",".join(map(str, range(100))), "limit": 500}, 36.0),
        ("list", {"limit": 100}, 36.0),
        ("list", {"limit": 500}, 120.0),
        ("search", {"limit": 100}, 30.0),
        ("create", {}, 60.0),
    ],
)
def test_a_call_may_take_as_long_as_what_it_reads_is_large(
    operation: str, query: dict[str, Any], seconds: float
) -> None:
    assert longest_s(operation, query) == pytest.approx(seconds)
