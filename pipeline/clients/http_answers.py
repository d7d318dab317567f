"""The meaning of HTTP answers: tables from status to the errors of `pipeline.errors`, one for each kind of call.

Sources: https://pipedrive.readme.io/docs/core-api-concepts-http-status-codes and
https://pipedrive.readme.io/docs/marketplace-oauth-and-api-proxy-status-codes; Hull uses the same statuses.
The meaning depends on the call: only for a single record, "not found" means that it is deleted. A list, a search and the
field definitions always exist, so their 404 is a temporary error. The remote's message is included for the person who
reads the failure, limited to words of error messages and names of fields.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import islice
from typing import Any, Final

import orjson

from pipeline.clients.http_transport import Response
from pipeline.domain.json_text import MAX_DEPTH, read_strict
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable
from pipeline.masking import LONGEST_READ, mask_text

BURST_PAUSE_S = 2.0
"""The burst window of Pipedrive, in seconds, when a 429 names no pause."""
DAILY_PAUSE_S = 1800.0
"""The daily budget is reset at an unknown midnight: try twice an hour."""
HTML_PAUSE_S = 60.0
MOST_EXPENSIVE_CALL = 20
"""Tokens of the most expensive call, a search: a 429 with less left of the day may be the day's."""
HIGHEST_LIMIT = 10_000
"""A larger burst limit per two seconds is not plausible; the highest plan has 480."""
LONGEST_PAUSE_S = 3600.0
ABSURD_PAUSE_S = 86_400.0

Statuses = Mapping[int, tuple[type[PipelineError], str]]

STATUSES: Final[Statuses] = {
    400: (Rejected, "bad_request"),
    401: (ConfigurationError, "unauthorized"),
    402: (ConfigurationError, "payment_required"),
    403: (ConfigurationError, "forbidden"),
    404: (Retryable, "remote_unavailable"),
    408: (Retryable, "remote_unavailable"),
    410: (Retryable, "remote_unavailable"),
    422: (Rejected, "bad_request"),
    425: (Retryable, "remote_unavailable"),
    429: (Retryable, "rate_limited"),
}
"""Calls to lists and other resources that always exist. Other statuses: 2xx is an answer, 3xx and 5xx (520 to 524 too)
are `remote_unavailable`, 4xx is `bad_request`."""

RECORD_STATUSES: Final[Statuses] = {**STATUSES, 404: (Rejected, "gone"), 410: (Rejected, "gone")}
"""Calls that name one record by its id."""

TOKEN_STATUSES: Final[Statuses] = {
    status: (Retryable, "remote_unavailable") for status in range(400, 500) if status != HTTPStatus.TOO_MANY_REQUESTS
} | {429: STATUSES[429]}
"""The token endpoint, after its error code was read: no status on its own ends an authorization."""

_VALID_WITH_HTML = frozenset({401, 402, 408, 425, 429})
"""For the other 4xx, an HTML page comes from the edge: it has no meaning for the record."""

_WORDS_IN = ("error", "message", "errors", "code", "error_info")
"""Members of an answer that describe the error."""
DEEPEST_WORDS = 6
MOST_WORDS = 50
"""Maximum number of texts that are joined, and how deep in the answer they may be."""
_HTML_TAG = re.compile(rb"</?[a-zA-Z!][a-zA-Z0-9-]{0,40}")
_MEDIA_TYPE = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,40}")


def json_answer(response: Response, *, hidden: Iterable[str] = (), max_depth: int | None = MAX_DEPTH) -> Any:
    """Decode the JSON of a 2xx answer; any other answer is raised as its error.

    `hidden` are texts that no error may repeat: credentials, and the values that were sent.
    """
    if not 200 <= response.status < 300:
        raise error_for(response, hidden=hidden)
    if response.is_html:
        raise Retryable("html_answer", excerpt(response), retry_after_s=HTML_PAUSE_S)
    try:
        return read_strict(response.body, max_depth=max_depth)
    except ValueError:
        failure = Retryable("page_not_json", excerpt(response))
    raise failure  # outside the except block: the parser's error holds the whole body


def error_for(
    response: Response, *, hidden: Iterable[str] = (), known: Collection[str] = (), statuses: Statuses = STATUSES
) -> PipelineError:
    """Return the error for an answer that is not 2xx; `statuses` is the table of the kind of call.

    hidden, known  texts that its message must never repeat, and may always repeat; see `remote_words`
    """
    status = response.status
    if response.is_html and 400 <= status < 500 and status not in _VALID_WITH_HTML:
        return Retryable("html_answer", excerpt(response), retry_after_s=HTML_PAUSE_S)
    if status == 429:
        return _too_many(response)
    family, reason = statuses.get(status, (Rejected, "bad_request"))
    if not 400 <= status < 500:
        family, reason = Retryable, "remote_unavailable"
    if family is Retryable:
        return Retryable(reason, f"HTTP {status}", retry_after_s=pause_s(response, "retry-after"))
    words = remote_words(response.body, hidden, known)
    return family(reason, f"HTTP {status}: {words}" if words else f"HTTP {status}")


def _too_many(response: Response) -> Retryable:
    """Distinguish the daily budget from the burst limit by the remaining tokens, if the answer has them.

    `x-ratelimit-remaining` is not reliable: it was seen above 0 on answers to a full window. Without a statement about
    the budget, the pauses grow, so that a silently spent budget costs a call every few minutes.
    """
    asked_s = pause_s(response, "retry-after")
    day = daily_headers(response)
    if day is not None and day[1] < MOST_EXPENSIVE_CALL:
        return Retryable("daily_budget_spent", "HTTP 429", retry_after_s=asked_s or DAILY_PAUSE_S)
    pause = asked_s or pause_s(response, "x-ratelimit-reset") or BURST_PAUSE_S
    return Retryable("rate_limited", "HTTP 429", retry_after_s=pause)


def pause_s(response: Response, header: str, *, now: float | None = None) -> float | None:
    """Return the seconds to wait in a header, a number or an HTTP date; None if it is absent or invalid."""
    value = response.headers.get(header, "").strip()
    seconds = _number(value)
    if seconds is None and value:
        then = _http_date(value)
        here = _http_date(response.headers.get("date", "")) or now or time.time()
        seconds = then - here if then is not None else None
    if seconds is None or not 0 < seconds <= ABSURD_PAUSE_S:
        return None
    return min(seconds, LONGEST_PAUSE_S)


def daily_headers(response: Response) -> tuple[int, int] | None:
    """Return the company's daily tokens and the remaining ones, if the answer has both.

    Not documented; recorded answers of 2026 have them.
    """
    limit = _number(response.headers.get("x-daily-ratelimit-token-limit"))
    remaining = _number(response.headers.get("x-daily-ratelimit-token-remaining"))
    if limit is None or remaining is None or not (1 <= limit <= 1e12 and 0 <= remaining <= limit):
        return None
    return int(limit), int(remaining)


def rate_headers(response: Response) -> tuple[int, int] | None:
    """Return the burst limit and what remains of it in the server's two seconds, if the answer has both."""
    limit = _number(response.headers.get("x-ratelimit-limit"))
    remaining = _number(response.headers.get("x-ratelimit-remaining"))
    if limit is None or remaining is None or not (1 <= limit <= 1e9 and 0 <= remaining <= limit):
        return None
    highest = min(limit, HIGHEST_LIMIT)
    return int(highest), int(max(0, highest - (limit - remaining)))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def remote_words(body: bytes, hidden: Iterable[str] = (), known: Collection[str] = ()) -> str:
    """Return the remote's message, at most 300 characters and without values of records; see `pipeline.masking`.

    known  names of fields that may be repeated, besides those that consist of plain words
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(answer, dict):
        return ""
    texts = (text for name in _WORDS_IN if answer.get(name) for text in _texts_in(answer[name], DEEPEST_WORDS))
    return mask_text("; ".join(islice(texts, MOST_WORDS)), known=known, hidden=hidden)


def _texts_in(part: Any, levels: int) -> Iterator[str]:
    """Yield every text and number in a part of an answer, with its key; each cut to the examined length."""
    if isinstance(part, dict) and levels:
        for name, value in part.items():
            for text in _texts_in(value, levels - 1):
                yield f"{name[:LONGEST_READ]}: {text}"
    elif isinstance(part, list) and levels:
        for item in part:
            yield from _texts_in(item, levels - 1)
    elif not isinstance(part, (dict, list)):
        yield str(part)[:LONGEST_READ]


def excerpt(response: Response) -> str:
    """Describe an unreadable answer without its content: type, length and, of HTML, the first tags."""
    given = response.headers.get("content-type", "no content type").split(";")[0].strip().lower()
    kind = given if _MEDIA_TYPE.fullmatch(given) else "no content type"
    tags = (
        " ".join(tag.decode() + ">" for tag in _HTML_TAG.findall(response.body[:300])[:4]) if response.is_html else ""
    )
    return f"HTTP {response.status}, {kind}, {len(response.body)} bytes" + (f", begins {tags}" if tags else "")


def texts_of(value: Any) -> list[str]:
    """Return every text in a JSON value: an error about it must not repeat them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in texts_of(item)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts_of(item)]
    return []


def names_in(value: Any) -> set[str]:
    """Return every key in a JSON value: an error about it may repeat them."""
    if isinstance(value, Mapping):
        return {str(name) for name in value} | {name for item in value.values() for name in names_in(item)}
    if isinstance(value, (list, tuple)):
        return {name for item in value for name in names_in(item)}
    return set()
