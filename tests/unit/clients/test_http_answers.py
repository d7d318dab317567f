"""One table has the meaning of HTTP answers, and no error repeats secrets or values."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.clients.http_answers import (
    RECORD_STATUSES,
    STATUSES,
    TOKEN_STATUSES,
    error_for,
    json_answer,
    names_in,
    pause_s,
    rate_headers,
    remote_words,
    texts_of,
)
from pipeline.clients.http_transport import Response
from pipeline.domain.json_text import read_strict
from pipeline.domain.reasons import REASONS
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable

JSON = {"content-type": "application/json"}
HTML = b"<!DOCTYPE html>\n<html><head><title>Sorry, ada@acme.test</title>"


def answer(status: int = 200, body: bytes = b'{"success":false,"error":"No"}', **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status=status, headers=JSON | named, body=body, duration_s=0.1)


@pytest.mark.parametrize(
    ("status", "family", "reason"),
    [
        (301, Retryable, "remote_unavailable"),
        (400, Rejected, "bad_request"),
        (401, ConfigurationError, "unauthorized"),
        (402, ConfigurationError, "payment_required"),
        (403, ConfigurationError, "forbidden"),
        (404, Retryable, "remote_unavailable"),
        (405, Rejected, "bad_request"),
        (408, Retryable, "remote_unavailable"),
        (409, Rejected, "bad_request"),
        (410, Retryable, "remote_unavailable"),
        (415, Rejected, "bad_request"),
        (422, Rejected, "bad_request"),
        (429, Retryable, "rate_limited"),
        (500, Retryable, "remote_unavailable"),
        (502, Retryable, "remote_unavailable"),
        (503, Retryable, "remote_unavailable"),
        (504, Retryable, "remote_unavailable"),
        *[(status, Retryable, "remote_unavailable") for status in range(520, 525)],
    ],
)
def test_a_status_alone_decides_the_error(status: int, family: type[PipelineError], reason: str) -> None:
    error = error_for(answer(status))

    assert (type(error), error.reason) == (family, reason)
    assert reason in REASONS
    assert str(status) in error.detail


def test_every_table_differs_only_where_the_call_means_something_else() -> None:
    for status in range(300, 600):
        usual, of_record, of_token = (
            (type(error), error.reason)
            for error in (
                error_for(answer(status), statuses=table) for table in (STATUSES, RECORD_STATUSES, TOKEN_STATUSES)
            )
        )
        is_refused = status != 429 and 400 <= status < 500

        assert of_record == ((Rejected, "gone") if status in {404, 410} else usual), status
        assert usual != (Rejected, "gone"), status
        assert of_token == ((Retryable, "remote_unavailable") if is_refused else usual), status


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422])
def test_an_html_page_is_not_about_the_record(status: int) -> None:
    """Above all a 404 from an edge must not read as a record that is gone."""
    error = error_for(Response(status=status, headers={"content-type": "text/html"}, body=HTML, duration_s=0))

    assert isinstance(error, Retryable)
    assert (error.reason, error.retry_after_s) == ("html_answer", 60)
    assert error.detail == f"HTTP {status}, text/html, {len(HTML)} bytes, begins <!DOCTYPE> <html> <head> <title>"


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "unauthorized"), (429, "rate_limited"), (502, "remote_unavailable")]
)
def test_these_statuses_mean_the_same_in_html(status: int, reason: str) -> None:
    assert (
        error_for(Response(status=status, headers={"content-type": "text/html"}, body=HTML, duration_s=0)).reason
        == reason
    )


def test_json_under_the_name_of_html_is_read_as_json() -> None:
    assert error_for(answer(403, content_type="text/html")).reason == "forbidden"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "-3", "x_ratelimit_reset": "2"}, 2),
        ({"retry_after": "0", "x_ratelimit_reset": "1"}, 1),
        ({"retry_after": "soon"}, 2),
        ({"retry_after": "nan"}, 2),
        ({"retry_after": "inf"}, 2),
        ({"retry_after": "99999999"}, 2),
        ({"retry_after": "20000"}, 3600),
        ({"x_ratelimit_reset": "1"}, 1),
        ({}, 2),
        ({"date": "Mon, 23 Nov 2026 14:00:00 GMT", "retry_after": "Mon, 23 Nov 2026 14:00:30 GMT"}, 30),
        ({"date": "Mon, 23 Nov 2026 14:00:00 GMT", "retry_after": "Mon, 23 Nov 2026 13:00:00 GMT"}, 2),
        ({"date": "nonsense", "retry_after": "Mon, 99 Nov 2026 13:00:00 GMT"}, 2),
    ],
)
def test_the_pause_of_a_429_is_the_servers_wish_if_it_makes_sense(headers: dict[str, str], seconds: float) -> None:
    error = error_for(answer(429, x_ratelimit_remaining="0", **headers))

    assert isinstance(error, Retryable)
    assert error.reason == "rate_limited"
    assert error.retry_after_s == seconds


def test_a_date_is_measured_from_here_when_the_server_names_no_time() -> None:
    response = answer(503, retry_after="Mon, 23 Nov 2026 14:00:30 GMT")

    assert pause_s(response, "retry-after", now=1_795_442_400.0) == 30


@pytest.mark.parametrize(("headers", "seconds"), [({"x_ratelimit_reset": "2"}, 1800), ({"retry_after": "30"}, 30)])
@pytest.mark.parametrize("remaining", ["0", "19"])
def test_a_429_with_nothing_left_of_the_day_is_the_daily_budget(
    headers: dict[str, str], seconds: float, remaining: str
) -> None:
    day = {"x_daily_ratelimit_token_limit": "30000", "x_daily_ratelimit_token_remaining": remaining}
    error = error_for(answer(429, x_ratelimit_remaining="0", **day, **headers))

    assert isinstance(error, Retryable)
    assert (error.reason, error.retry_after_s) == ("daily_budget_spent", seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_ratelimit_remaining": "78", "x_ratelimit_limit": "80"},
        {"x_daily_ratelimit_token_limit": "30000", "x_daily_ratelimit_token_remaining": "12000"},
        {"x_daily_ratelimit_token_limit": "30000", "x_daily_ratelimit_token_remaining": "-1"},
        {"x_daily_ratelimit_token_limit": "soon", "x_daily_ratelimit_token_remaining": "0"},
        {"x_daily_ratelimit_token_remaining": "0"},
    ],
)
def test_any_other_429_is_waited_for(headers: dict[str, str]) -> None:
    error = error_for(answer(429, **headers))

    assert isinstance(error, Retryable)
    assert (error.reason, error.retry_after_s) == ("rate_limited", 2)


def test_a_429_without_headers_is_a_burst() -> None:
    assert error_for(answer(429)).reason == "rate_limited"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":"Name must be given."}', "Name must be given."),
        (
            b'{"error":"Validation failed: name: Required","code":"ERR_SCHEMA_VALIDATION_FAILED"}',
            "Validation failed: name: Required; ERR_SCHEMA_VALIDATION_FAILED",
        ),
        (
            b'{"errors":{"subscription_url":["invalid or non-reachable URL"]}}',
            "subscription_url: invalid or non-reachable URL",
        ),
        (b'{"error":"ada@acme.test is taken"}', "… is taken"),
        (b'{"error":"call +372 555 1234 now"}', "call … now"),
        (
            b"""{"error":"'Ada Byron' is not a valid 'custom_fields.d4de1c1518b4531717c676029a45911c340390a6'"}""",
            "'…' is not a valid 'custom_fields.d4de1c1518b4531717c676029a45911c340390a6'",
        ),
        (b'{"error":"Ada Byron (Acme Ltd.) already exists"}', "… (…) already exists"),
        (b'{"error":"Person ADA BYRON was merged with ada.byron and ada_byron"}', "Person … was merged with … and …"),
        (
            b'{"errors":{"Ada Byron":["is not unique"],"first_name":["too long"]}}',
            "…: is not unique; first_name: too long",
        ),
        (b'{"error":"Ann Page, JOHN PAGE: Page is missing"}', "…, …: Page is missing"),
        (b"""{"error":"'ada_byron' and 'first_name' are required"}""", "'…' and 'first_name' are required"),
        (b'{"error":"name \\"Ada Byron is cut off h"}', 'name "…'),
        ('{"error":"\u00c4da M\u00fcller is taken, limit is 255"}'.encode(), "… is taken, limit is 255"),
        (
            b"""{"error":"unknown key \\"d4de1c1518b4531717c676029a45911c340390a6\\""}""",
            'unknown key "d4de1c1518b4531717c676029a45911c340390a6"',
        ),
        (b"""{"error":"couldn't, shouldn't"}""", "couldn't, shouldn't"),
        (b"<html>", ""),
        (b"[1]", ""),
        (b'{"error":null}', ""),
    ],
)
def test_the_remotes_words_come_without_what_they_quote(body: bytes, words: str) -> None:
    assert remote_words(body) == words


def test_the_remotes_words_never_hold_what_was_sent_and_are_cut() -> None:
    sent: Any = {"name": "Ada Byron", "emails": [{"value": "x"}], "job": {"title": "Countess"}}

    words = remote_words(b'{"error":"Ada Byron, Countess ' + b"is " * 400 + b'"}', texts_of(sent))

    assert words.startswith("…, … is is")
    assert len(words) == 300


def test_the_remotes_words_may_name_the_fields_that_were_sent() -> None:
    sent: Any = {"name": "Ada Byron", "custom_fields": {"abc123": {"value": "Countess"}}}

    words = remote_words(b'{"error":"abc123 of Ada Byron and xyz123 are invalid"}', texts_of(sent), names_in(sent))

    assert words == "abc123 of … and … are invalid"


def test_an_answer_that_nests_as_deep_as_the_parser_reads_is_cut() -> None:
    assert remote_words(b'{"error":' + b"[" * 1_000 + b'"name"' + b"]" * 1_000 + b"}") == ""
    assert remote_words(b'{"errors":' + b"[[[" + b'"is invalid"' + b"]]]}") == "is invalid"


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":"\\ud800","b":NaN}', b"\xff\xfe", b"{}{}", b"ok \\u"]
)
def test_what_is_no_json_is_no_answer(body: bytes) -> None:
    with pytest.raises(Retryable) as caught:
        json_answer(answer(200, body))

    assert caught.value.reason == "page_not_json"
    assert caught.value.detail == f"HTTP 200, application/json, {len(body)} bytes"
    assert caught.value.__context__ is None, "the parser's error holds the body"


def test_an_html_page_in_place_of_an_answer_is_tried_again() -> None:
    with pytest.raises(Retryable) as caught:
        json_answer(answer(200, HTML))

    assert (caught.value.reason, caught.value.retry_after_s) == ("html_answer", 60)


def test_half_a_surrogate_pair_is_read_so_that_the_transform_can_name_its_field() -> None:
    assert read_strict(b'{"name":"\\ud800x"}') == {"name": "\ud800x"}


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_bounded(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"

    def nested(depth: int) -> bytes:
        return opening * depth + b"1" + closing * depth

    assert read_strict(nested(32))
    for depth in (33, 500, 100_000):
        with pytest.raises(ValueError, match=r"deep|depth|recursion"):
            read_strict(nested(depth))


def test_nesting_is_bounded_for_the_other_parser_too() -> None:
    with pytest.raises(ValueError, match="nested"):
        read_strict(b"[" * 100_000 + b'"\\ud800"' + b"]" * 100_000)


@pytest.mark.parametrize(
    ("limit", "remaining", "read"),
    [
        ("80", "79", (80, 79)),
        ("80", "0", (80, 0)),
        ("0", "0", None),
        ("80", "81", None),
        ("x", "1", None),
        ("2e9", "1", None),
        ("1000000", "999990", (10_000, 9_990)),
        ("1000000", "5", (10_000, 0)),
    ],
)
def test_rate_headers_are_believed_when_they_make_sense(limit: str, remaining: str, read: object) -> None:
    assert rate_headers(answer(x_ratelimit_limit=limit, x_ratelimit_remaining=remaining)) == read


def test_missing_rate_headers_are_ignored() -> None:
    assert rate_headers(answer()) is None
