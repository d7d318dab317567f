"""The Hull client: requests in Hull's shape, batches of fifty, and what refusals mean."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.clients import hull as hull_module
from pipeline.clients.http_transport import Exchange
from pipeline.clients.hull import HullClient
from pipeline.domain.kinds import Entity
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable
from tests.unit.clients.canned import HTML, LOST, Answer, CannedApp, json_answer
from tests.wsgi_adapter import session_for

CONNECTOR = "65f000000000000000000001"
SECRET = "canary-secret-of-the-connector"
REST = "https://acme-demo.hullapp.io"
FIREHOSE = "https://firehose.hullapp.io"


def client(app: CannedApp, **options: Any) -> HullClient:
    return HullClient(
        session_for({REST: app, FIREHOSE: app, "http://127.0.0.1": app}),
        organization="acme-demo.hullapp.io",
        connector_id=CONNECTOR,
        secret=SECRET,
        now=lambda: datetime(2026, 11, 23, tzinfo=UTC),
        **options,
    )


def messages(hull: HullClient, count: int) -> list[bytes]:
    writer = hull.writer()
    return [writer.user_traits({"anonymous_id": f"pipedrive:{n}"}, {"n": n}) for n in range(count)]


def test_messages_travel_in_order_fifty_to_a_request() -> None:
    app = CannedApp(json_answer({"ok": True}))
    hull = client(app)

    assert hull.post_batches(messages(hull, 120)) == 3

    sizes = [len(asked.json["batch"]) for asked in app.asked]
    sent = [item["body"]["n"] for asked in app.asked for item in asked.json["batch"]]
    assert sizes == [50, 50, 20]
    assert sent == list(range(120))


def test_a_firehose_request_carries_the_connectors_credentials() -> None:
    app = CannedApp(json_answer({"ok": True}))
    hull = client(app)

    hull.post_batches(messages(hull, 1))

    headers = app.asked[0].headers
    assert (app.asked[0].method, app.asked[0].path, headers["host"]) == ("POST", "/", "firehose.hullapp.io")
    assert headers["hull-app-id"] == CONNECTOR
    assert headers["hull-access-token"] == SECRET
    assert headers["hull-organization"] == "acme-demo.hullapp.io"
    assert headers["content-type"] == "application/json"


def test_the_firehose_may_have_another_address() -> None:
    app = CannedApp(json_answer({"ok": True}))
    hull = client(app, firehose_url="http://127.0.0.1/api/v1/firehose")

    hull.post_batches(messages(hull, 1))

    assert app.asked[0].path == "/api/v1/firehose"


def test_no_messages_make_no_request() -> None:
    app = CannedApp(json_answer({}))

    assert client(app).post_batches([]) == 0

    assert app.asked == []


def test_large_messages_make_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hull_module, "BATCH_MAX_BYTES", 1000)
    app = CannedApp(json_answer({"ok": True}))
    hull = client(app)

    hull.post_batches(messages(hull, 9))

    assert all(len(asked.body) < 1200 for asked in app.asked)
    assert sum(len(asked.json["batch"]) for asked in app.asked) == 9


@pytest.mark.parametrize("body", [b"ok", b"", b'{"ok":true}'])
def test_a_2xx_accepts_the_messages_with_any_body(body: bytes) -> None:
    app = CannedApp(Answer(status=202, body=body, headers={"Content-Type": "text/html"}))
    hull = client(app)

    assert hull.post_batches(messages(hull, 1)) == 1


def test_a_maintenance_page_has_taken_nothing() -> None:
    hull = client(CannedApp(Answer(body=b"<html>soon</html>")))

    with pytest.raises(Retryable) as caught:
        hull.post_batches(messages(hull, 1))

    assert caught.value.reason == "html_answer"


@pytest.mark.parametrize(
    ("answer", "family", "reason"),
    [
        (json_answer({"message": "no"}, 401), ConfigurationError, "hull_refused"),
        (json_answer({"message": "no"}, 403), ConfigurationError, "hull_refused"),
        (json_answer({"message": "no"}, 404), ConfigurationError, "hull_refused"),
        (json_answer({"message": "no"}, 402), ConfigurationError, "payment_required"),
        (json_answer({"message": "no"}, 400), Rejected, "bad_request"),
        (json_answer({"message": "no"}, 413), Rejected, "bad_request"),
        (json_answer({"message": "no"}, 429), Retryable, "rate_limited"),
        (json_answer({"message": "no"}, 503), Retryable, "remote_unavailable"),
        (HTML, Retryable, "html_answer"),
        (LOST, Retryable, "remote_unavailable"),
    ],
)
def test_a_refusal_means_the_same_for_firehose_and_rest(
    answer: Answer, family: type[PipelineError], reason: str
) -> None:
    hull = client(CannedApp(answer))

    for call in (lambda: hull.post_batches(messages(hull, 1)), hull.app, lambda: hull.put_status("ok", [])):
        with pytest.raises(family) as caught:
            call()
        assert caught.value.reason == reason
        assert SECRET not in f"{caught.value} {caught.value!r} {hull!r}"


def test_a_refused_batch_stops_those_behind_it() -> None:
    app = CannedApp(json_answer({"ok": True}), json_answer({}, 503), json_answer({"ok": True}))
    hull = client(app)

    with pytest.raises(Retryable):
        hull.post_batches(messages(hull, 150))

    assert len(app.asked) == 2


@pytest.mark.parametrize(
    ("call", "method", "path", "body"),
    [
        (lambda h: h.app(), "GET", "/api/v1/app", None),
        (lambda h: h.connector(), "GET", f"/api/v1/{CONNECTOR}", None),
        (
            lambda h: h.put_settings({"a": 1}, refresh_status=True),
            "PUT",
            f"/api/v1/{CONNECTOR}",
            {"private_settings": {"a": 1}, "refresh_status": True},
        ),
        (
            lambda h: h.put_status("warning", ["Choose a field"]),
            "PUT",
            f"/api/v1/{CONNECTOR}/status",
            {"status": "warning", "messages": ["Choose a field"]},
        ),
    ],
)
def test_rest_calls_go_to_the_organization(
    call: Callable[[HullClient], object], method: str, path: str, body: Any
) -> None:
    app = CannedApp(json_answer({"id": CONNECTOR}))
    seen: list[Exchange] = []

    call(client(app, on_call=seen.append))

    asked = app.asked[0]
    assert (asked.method, asked.path, asked.headers["host"]) == (method, path, "acme-demo.hullapp.io")
    assert asked.json == body if body is not None else asked.body == b""
    assert [(exchange.path, exchange.tokens) for exchange in seen] == [(path, 0)]


def reports(rows: list[Any], pages: int) -> Answer:
    return json_answer({"pagination": {"total": len(rows), "page": 1, "pages": pages, "per_page": 50}, "data": rows})


def test_reports_are_found_by_anonymous_id() -> None:
    app = CannedApp(reports([{"id": "h1"}], 2), reports([{"id": "h2"}], 2))

    found = client(app).search_reports(Entity.ORGANIZATION, ["pipedrive:1", "pipedrive:2"])

    assert [row["id"] for row in found] == ["h1", "h2"]
    assert [asked.path for asked in app.asked] == ["/api/v1/search/account_reports"] * 2
    terms = [{"term": {"anonymous_ids.raw": "pipedrive:1"}}, {"term": {"anonymous_ids.raw": "pipedrive:2"}}]
    query = {"bool": {"filter": [{"bool": {"should": terms}}]}}
    assert [asked.json for asked in app.asked] == [
        {"query": query, "raw": True, "page": page, "per_page": 50} for page in (1, 2)
    ]


def test_a_search_that_answers_no_list_is_not_a_miss() -> None:
    with pytest.raises(Retryable) as caught:
        client(CannedApp(json_answer({"data": None}))).search_reports(Entity.PERSON, ["pipedrive:1"])

    assert caught.value.reason == "page_malformed"


def test_more_ids_than_a_page_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="50"):
        client(CannedApp(json_answer({}))).search_reports(Entity.PERSON, ["x"] * 51)


def test_an_answer_that_is_no_object_is_malformed() -> None:
    with pytest.raises(Retryable) as caught:
        client(CannedApp(json_answer([]))).app()

    assert caught.value.reason == "page_malformed"
