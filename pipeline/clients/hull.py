"""Hull's API: the firehose that receives messages, and the few REST calls of a connector.

Nothing is retried here except a call with a kept connection that was closed: the row that caused the call is retried.
Source: packages/hull-client/src/lib/{configuration,rest-api}.js of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import requests

from pipeline.clients.http_answers import HTML_PAUSE_S, error_for, excerpt, json_answer
from pipeline.clients.http_transport import Gate, HttpTransport, OnCall, Request, Response
from pipeline.domain.kinds import Entity
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable

USER_CLAIMS = ("id", "email", "external_id", "anonymous_id")
ACCOUNT_CLAIMS = ("id", "external_id", "domain", "anonymous_id")

_HEADER = urlsafe_b64encode(b'{"typ":"JWT","alg":"HS256"}').rstrip(b"=") + b"."

Claims = Mapping[str, str] | bytes
"""Claims by name, or their JSON if the caller has serialized them."""

Attributes = Mapping[str, Any] | bytes
"""Attributes by name, or their JSON."""

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class MessageWriter:
    """Writes the messages of one connector at one moment; create one per batch."""

    def __init__(self, *, connector_id: str, secret: str, now: datetime) -> None:
        self._sign = signer(secret)
        issued_at = int(now.timestamp())
        self._opening = orjson.dumps({"iss": connector_id, "iat": issued_at})[:-1]
        self._closing = b'"},"timestamp":"' + iso_millis(now).encode() + b'"}'

    def __repr__(self) -> str:
        return "MessageWriter()"

    def user_traits(self, claims: Claims, attributes: Attributes) -> bytes:
        """Set attributes of a User.

        Raises: Rejected("unusable_text") for text that is not UTF-8, ValueError without any claim.
        """
        return self._message(b"traits", _as_user(claims), attributes)

    def account_traits(self, claims: Claims, attributes: Attributes) -> bytes:
        """Set attributes of an Account. Raises: as `user_traits`."""
        return self._message(b"traits", _as_account(claims), attributes)

    def user_alias(self, claims: Claims, anonymous_id: str) -> bytes:
        """Give a User one more anonymous id; the User that has it becomes the same. Raises: as `user_traits`."""
        return self._message(b"alias", _as_user(claims), {"anonymous_id": anonymous_id})

    def account_alias(self, claims: Claims, anonymous_id: str) -> bytes:
        """Give an Account one more anonymous id. Raises: as `user_traits`."""
        return self._message(b"alias", _as_account(claims), {"anonymous_id": anonymous_id})

    def link_traits(self, user: Claims, account: Claims, attributes: Attributes) -> bytes:
        """Link a User to an Account, and set attributes of the Account. Raises: as `user_traits`."""
        tail = b',"io.hull.asUser":' + _subject(user, USER_CLAIMS)
        tail += b',"io.hull.asAccount":' + _subject(account, ACCOUNT_CLAIMS)
        return self._message(b"traits", tail + _sub(account) + b',"io.hull.subjectType":"account"}', attributes)

    def _message(self, kind: bytes, claims_tail: bytes, body: Attributes) -> bytes:
        token = self._sign(self._opening + claims_tail)
        return b'{"type":"%b","body":%b,"headers":{"Hull-Access-Token":"%b%b' % (
            kind,
            _json(body),
            token,
            self._closing,
        )


def envelope(messages: Sequence[bytes], now: datetime) -> bytes:
    """Return the body of one firehose request."""
    moment = iso_millis(now).encode()
    return b'{"batch":[%b],"timestamp":"%b","sentAt":"%b"}' % (b",".join(messages), moment, moment)


def signer(secret: str) -> Callable[[bytes], bytes]:
    """Return a function from the JSON of a JWT's claims to the JWT, HS256 under `secret`; the key is hashed here, once."""
    prepared = hmac.new(secret.encode(), _HEADER, "sha256")

    def sign(claims: bytes) -> bytes:
        payload = b2a_base64(claims, newline=False).translate(_URL_SAFE).rstrip(b"=")
        signed = prepared.copy()
        signed.update(payload)
        signature = b2a_base64(signed.digest(), newline=False).translate(_URL_SAFE).rstrip(b"=")
        return b"%b%b.%b" % (_HEADER, payload, signature)

    return sign


def iso_millis(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _as_user(claims: Claims) -> bytes:
    return b',"io.hull.asUser":' + _subject(claims, USER_CLAIMS) + _sub(claims) + b',"io.hull.subjectType":"user"}'


def _as_account(claims: Claims) -> bytes:
    tail = _sub(claims) + b',"io.hull.subjectType":"account"}'
    return b',"io.hull.asAccount":' + _subject(claims, ACCOUNT_CLAIMS) + tail


def _subject(claims: Claims, known: tuple[str, ...]) -> bytes:
    if isinstance(claims, bytes):
        return claims
    kept = {name: value for name, value in claims.items() if name in known and value is not None}
    if not kept:
        raise ValueError("no claim identifies this record")
    return _json(kept)


def _sub(claims: Claims) -> bytes:
    """Return `sub`, which is Hull's own id, if it is known."""
    hull_id = None if isinstance(claims, bytes) else claims.get("id")
    return b',"sub":' + orjson.dumps(hull_id) if hull_id else b""


def _json(value: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return orjson.dumps(value)
    except TypeError:
        failure = Rejected("unusable_text", "the values cannot be written as JSON")
    raise failure


BATCH_SIZE = 50
"""Maximum number of messages in a request, as in Hull's own client."""
BATCH_MAX_BYTES = 4 * 1024 * 1024
SEARCH_PER_PAGE = 50
_MAX_SEARCH_PAGES = 20

Record = dict[str, Any]
Report = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundReports:
    """One page of a search, the total number of matching records, and the number of pages."""

    reports: list[Report] = field(repr=False)
    total: int
    pages: int


class HullClient:
    """The calls of one connector.

    organization  host, with a port where it has one, for example `acme.hullapp.io`
    firehose_url  replaces `<protocol>://firehose.<the organization's domain>`
    """

    def __init__(  # noqa: PLR0913 - each argument is one setting of the connection
        self,
        session: requests.Session,
        *,
        organization: str,
        connector_id: str,
        secret: str,
        protocol: str = "https",
        firehose_url: str | None = None,
        on_call: OnCall | None = None,
        gate: Gate | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._transport = HttpTransport(session, on_call=on_call, gate=gate)
        self._organization = organization
        self._connector_id = connector_id
        self._secret = secret
        self._api_url = f"{protocol}://{organization}/api/v1/"
        self._firehose_url = firehose_url or f"{protocol}://firehose.{organization.partition('.')[2]}/"
        self._now = now

    def __repr__(self) -> str:
        return f"HullClient({self._organization}, {self._connector_id})"

    def writer(self) -> MessageWriter:
        """Return a writer of firehose messages for one batch: its tokens contain the current time."""
        return MessageWriter(connector_id=self._connector_id, secret=self._secret, now=self._now())

    def post_batches(self, messages: Sequence[bytes], *, size: int = BATCH_SIZE) -> int:
        """Send messages in order, at most `size` per request, over one kept connection; return the number of requests.

        The firehose accepts or refuses a whole request, without details about messages. After an error some requests may
        have been accepted; sending all of them again changes nothing in Hull.
        Raises: ConfigurationError("hull_refused"), Retryable.
        """
        count = 0
        for batch in _batches(messages, size):
            self._accepted(self._send("POST", self._firehose_url, envelope(batch, self._now())))
            count += 1
        return count

    def app(self) -> Record:
        """Return the connector as stored in Hull: `private_settings`, `manifest`, ..."""
        return self._object("GET", "app")

    def connector(self, connector_id: str | None = None) -> Record:
        """Return a connector as stored in Hull, by its id."""
        return self._object("GET", connector_id or self._connector_id)

    def put_settings(self, private_settings: Mapping[str, Any], *, refresh_status: bool = False) -> Record:
        """Replace all settings, so read and merge them first; Hull then sends `ship:update`. Return the connector."""
        body = {"private_settings": dict(private_settings), "refresh_status": refresh_status}
        return self._object("PUT", self._connector_id, body)

    def put_status(self, status: str, messages: Sequence[str]) -> None:
        """Report `ok`, `warning`, `error` or `setupRequired` with its reasons."""
        self._accepted(
            self._rest("PUT", f"{self._connector_id}/status", {"status": status, "messages": list(messages)})
        )

    def segments(self, entity: Entity) -> list[tuple[str, str]]:
        """Return (id, name) of every segment of Users or Accounts. Raises: Retryable("page_malformed")."""
        path = f"{entity.hull}s_segments?shipId={self._connector_id}"
        answer = json_answer(self._accepted(self._rest("GET", path, None)))
        if not isinstance(answer, list):
            raise Retryable("page_malformed", "Hull answered no list of segments")
        rows = [row for row in answer if isinstance(row, dict) and isinstance(row.get("id"), str)]
        return [(row["id"], row["name"] if isinstance(row.get("name"), str) else row["id"]) for row in rows]

    def search_reports(
        self, entity: Entity, anonymous_ids: Sequence[str], *, per_page: int = SEARCH_PER_PAGE
    ) -> list[Report]:
        """Return the flat reports of the Users or Accounts that have one of at most 50 anonymous ids."""
        if len(anonymous_ids) > SEARCH_PER_PAGE:
            raise ValueError(f"at most {SEARCH_PER_PAGE} anonymous ids per search")
        terms = [{"term": {"anonymous_ids.raw": value}} for value in anonymous_ids]
        query = {"bool": {"filter": [{"bool": {"should": terms}}]}}
        found: list[Report] = []
        for page in range(1, _MAX_SEARCH_PAGES + 1):
            answer = self.find_reports(entity, query, page=page, per_page=per_page)
            found.extend(answer.reports)
            if not answer.reports or page >= answer.pages:
                break
        return found

    def find_reports(
        self, entity: Entity, query: Mapping[str, Any], *, page: int = 1, per_page: int = SEARCH_PER_PAGE
    ) -> FoundReports:
        """Return one page of the Users or Accounts that match a query, at most 50.

        The query is in Elasticsearch's format: bool, term, terms, range, exists.
        Raises: Retryable("page_malformed") if the answer is not a page.
        """
        body = {"query": query, "raw": True, "page": page, "per_page": per_page}
        answer = self._object("POST", f"search/{entity.hull}_reports", body)
        data, pagination = answer.get("data"), answer.get("pagination")
        if not isinstance(data, list) or not isinstance(pagination, dict):
            raise Retryable("page_malformed", "Hull's search answered no list")
        reports = [report for report in data if isinstance(report, dict)]
        total = pagination.get("total")
        total = total if isinstance(total, int) else len(reports)
        return FoundReports(reports=reports, total=total, pages=pagination.get("pages") or 1)

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Record:
        answer = json_answer(self._accepted(self._rest(method, path, body)))
        if not isinstance(answer, dict):
            raise Retryable("page_malformed", "Hull answered no object")
        return answer

    def _rest(self, method: str, path: str, body: Mapping[str, Any] | None) -> Response:
        return self._send(method, self._api_url + path, None if body is None else orjson.dumps(body))

    def _send(self, method: str, url: str, body: bytes | None) -> Response:
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "hull-pipedrive",
            "Hull-App-Id": self._connector_id,
            "Hull-Access-Token": self._secret,
            "Hull-Organization": self._organization,
        }
        request = Request(
            method=method,
            url=url,
            headers=headers,
            body=body,
            remote="firehose" if url == self._firehose_url else "hull",
            only_asks="/search/" in url,
            resend_if_stale=True,
            error_of=self._error_of,
        )
        return self._transport.call(request)

    def _accepted(self, response: Response) -> Response:
        """Return a 2xx answer, or raise its error.

        Hull answers 401 or 403 to wrong credentials, and 404 for a connector that is unknown or not ours. An HTML page
        does not come from Hull, whatever its status: a proxy or a maintenance page received the messages.
        """
        if response.is_html and response.status < 400:
            raise Retryable("html_answer", excerpt(response), retry_after_s=HTML_PAUSE_S)
        if 200 <= response.status < 300:
            return response
        raise self._error_of(response)

    def _error_of(self, response: Response) -> PipelineError:
        if response.status in {401, 403, 404} and not response.is_html:
            return ConfigurationError("hull_refused", f"HTTP {response.status}")
        return error_for(response, hidden=[self._secret])


def _batches(messages: Sequence[bytes], size: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size_bytes = 0
    for message in messages:
        if batch and (len(batch) == size or size_bytes + len(message) > BATCH_MAX_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(message)
        size_bytes += len(message) + 1
    if batch:
        yield batch
