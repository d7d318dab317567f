"""Build the clients of a connector from its rows: the one place where clients and database meet."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.orm import Session

from db import connector as connectors
from db import token_ledger
from db.connector import ACCESS_TOKEN, API_TOKEN, REFRESH_TOKEN
from db.session import transaction
from db.token_ledger import Terms
from pipeline.clients.alert_sinks import MailSink, Relay, Sink, WebhookSink
from pipeline.clients.downloads import Downloads
from pipeline.clients.http_transport import Exchange
from pipeline.clients.hull import HullClient
from pipeline.clients.hull_notifications import NotificationVerifier
from pipeline.clients.limits import BurstLimiter, TokenBudget
from pipeline.clients.oauth import BearerAuth, Grant, OAuthClient, Token
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.clients.ssrf import Guard, check_api_domain
from pipeline.connections import (
    CONNECTIONS,
    check_organization,
    http_session,
    hull_guard,
    new_session,
    shared_redis,
)
from pipeline.domain.budget import Lane
from pipeline.errors import ConfigurationError, Retryable
from pipeline.outages import OutageGate
from pipeline.settings import settings
from pipeline.telemetry import logger
from pipeline.vault import Vault


@dataclass(slots=True)
class Calls:
    """Counts requests and tokens of Pipedrive's daily budget, for the ledger."""

    key: int
    lane: Lane
    requests: int = 0
    tokens: int = 0
    last: Exchange | None = None
    _here: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def last_here(self) -> Exchange | None:
        """Return the last call of this thread; several threads write in parallel."""
        return getattr(self._here, "last", None)

    @property
    def last_as_json(self) -> str | None:
        return self.last.as_json() if self.last is not None else None

    def note(self, exchange: Exchange) -> None:
        self._here.last = exchange
        self.requests += 1
        self.tokens += exchange.tokens
        self.last = exchange
        if exchange.operation:
            token_ledger.record_pending(self.key, self.lane, exchange.operation, exchange.tokens)
        logger().debug(
            "connector.service_api.call",
            method=exchange.method,
            url=exchange.path,
            status=exchange.status,
            responseTime=round(exchange.duration_ms, 1),
            tokens=exchange.tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """A connector ready for work."""

    key: int
    id: str
    organization: str
    pipedrive: PipedriveClient
    hull: HullClient
    calls: Calls


def open_connector(
    session: Session, connector_key: int, *, lane: str = Lane.CONTROL, deadline_s: float | None = None
) -> Wired:
    """Build the clients of one connector.

    lane        spends the daily budget
    deadline_s  limits a call to Pipedrive while a person waits for it
    Without Pipedrive credentials, calls to Hull work and the first call to Pipedrive fails with not_connected.
    Raises: ConfigurationError if a credential is missing or cannot be read.
    """
    access, environment, calls = connectors.access(session, connector_key), settings(), Calls(connector_key, Lane(lane))
    check_organization(access.hull_organization)
    open_secret = partial(_open_secret, connector_key, access.sealed)
    entry = _pipedrive_entry(connector_key, access)
    return Wired(
        key=connector_key,
        id=access.id,
        organization=access.hull_organization,
        pipedrive=PipedriveClient(
            http_session(),
            base_url=_pipedrive_url(access.pipedrive_company),
            auth=entry.auth,
            renew=entry.renew,
            limiter=_limiter(entry.counted_as),
            budget=_budget(access.terms, lane),
            on_call=calls.note,
            gate=OutageGate(connector_key),
            deadline_s=deadline_s,
        ),
        hull=HullClient(
            http_session(hull_guard(environment)),
            organization=access.hull_organization,
            connector_id=access.id,
            secret=open_secret("hull_secret"),
            protocol=environment.hull_protocol,
            firehose_url=environment.hull_firehose_url,
            on_call=calls.note,
            gate=OutageGate(connector_key),
        ),
        calls=calls,
    )


def connect(connector_key: int, *, lane: str = Lane.CONTROL, deadline_s: float | None = None) -> Wired:
    """Do the same as `open_connector`, in a transaction of its own."""
    with transaction() as session:
        return open_connector(session, connector_key, lane=lane, deadline_s=deadline_s)


def oauth_client(connector_key: int) -> OAuthClient:
    """Return the client of this installation's app for one connector.

    Raises: ConfigurationError("app_missing").
    """
    environment = settings()
    if not (environment.pipedrive_client_id and environment.pipedrive_client_secret):
        raise ConfigurationError("app_missing")
    return OAuthClient(
        http_session(),
        client_id=environment.pipedrive_client_id,
        client_secret=environment.pipedrive_client_secret,
        oauth_url=environment.pipedrive_oauth_url,
        callback_url=f"{environment.public_url}/auth/callback",
        on_call=Calls(connector_key, Lane.CONTROL).note,
        gate=OutageGate(connector_key),
    )


def try_grant(connector_key: int, grant: Grant) -> PipedriveClient:
    """Return a client with a grant that is not stored yet, to find its company.

    Raises: ConfigurationError("host_refused") if the grant has a host that is not allowed.
    """
    return PipedriveClient(
        http_session(),
        base_url=_pipedrive_url(granted_origin(grant)),
        auth={"Authorization": f"Bearer {grant.access_token}"},
        on_call=Calls(connector_key, Lane.CONTROL).note,
    )


class CallsToCount:
    """Collect calls with credentials of an unknown company, to count them once the connector exists."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []

    def note(self, exchange: Exchange) -> None:
        self._exchanges.append(exchange)

    def count_for(self, connector_key: int) -> None:
        calls = Calls(connector_key, Lane.CONTROL)
        for exchange in self._exchanges:
            calls.note(exchange)
        self._exchanges = []


def try_token(token: str, on_call: Callable[[Exchange], None], company: str | None = None) -> PipedriveClient:
    """Return a client with an API token that is not stored yet, to find its company; `company` is the origin to call."""
    return PipedriveClient(
        http_session(),
        base_url=_pipedrive_url(company),
        auth={"x-api-token": token},
        limiter=_limiter(token),
        on_call=on_call,
    )


def keep_grant(session: Session, connector_key: int, grant: Grant) -> None:
    """Seal and store the tokens of a grant. The caller has locked the old ones with `db.connector.lock_credentials`."""
    vault = Vault(settings().secret_keys)
    sealed = vault.seal(connector_key, ACCESS_TOKEN, grant.access_token)
    connectors.keep_credential(session, connector_key, ACCESS_TOKEN, sealed, expires_in_s=grant.expires_in_s)
    if grant.refresh_token:
        sealed = vault.seal(connector_key, REFRESH_TOKEN, grant.refresh_token)
        connectors.keep_credential(session, connector_key, REFRESH_TOKEN, sealed)


def granted_origin(grant: Grant) -> str | None:
    """Return the checked API origin of the grant's company; None if the answer has none, or PIPEDRIVE_API_URL.

    Raises: ConfigurationError("host_refused").
    """
    if grant.api_domain is None or grant.api_domain.rstrip("/") == settings().pipedrive_api_url:
        return None
    return check_api_domain(grant.api_domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A connector's access to Pipedrive; `counted_as` is the key under which calls are limited together."""

    auth: Mapping[str, str] | Callable[[], Mapping[str, str]]
    renew: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None
    counted_as: str = field(default="", repr=False)


def _pipedrive_entry(connector_key: int, access: connectors.Access) -> _Entry:
    """Return the access by OAuth if the connector was authorised, else by API token."""
    open_secret = partial(_open_secret, connector_key, access.sealed)
    if REFRESH_TOKEN in access.sealed:
        left_s, life_s = access.expiry.get(ACCESS_TOKEN, (0.0, 0.0))
        token = Token(text=open_secret(ACCESS_TOKEN), left_s=left_s, life_s=life_s)
        bearer = BearerAuth(token, partial(_renew, connector_key))
        return _Entry(auth=bearer.headers, renew=bearer.after_refusal, counted_as=f"oauth:{connector_key}")
    if API_TOKEN in access.sealed:
        api_token = open_secret(API_TOKEN)
        return _Entry(auth={"x-api-token": api_token}, counted_as=api_token)
    return _Entry(auth=_not_connected)


def _not_connected() -> Mapping[str, str]:
    raise ConfigurationError("not_connected")


def _renew(connector_key: int, refused: str | None) -> Token:
    """Renew the connector's tokens once for all workers: the others wait for the lock and find new tokens.

    refused  the access token that got a 401; None if it is only about to expire
    The answer is stored before it is used. A refusal pauses the connector, so that no other worker tries again.
    Raises: ConfigurationError, Retryable.
    """
    with transaction() as session:
        if len(connectors.lock_credentials(session, connector_key, ACCESS_TOKEN, REFRESH_TOKEN)) != 2:
            raise Retryable("credentials_replaced")
        connector = connectors.get_connector(session, connector_key)
        token = _token_in_force(session, connector_key)
        if token.text == refused or (refused is None and token.due_in_s <= 0):
            refusal = _refresh(session, connector)
            token = _token_in_force(session, connector_key)
        else:
            refusal = None
    if refusal is not None:
        raise refusal
    return token


_REFUSALS = frozenset({"unauthorized", "app_refused", "app_missing", "host_refused"})
"""Reasons of a pause during which a request for new tokens would be refused again."""


def _token_in_force(session: Session, connector_key: int) -> Token:
    access = connectors.access(session, connector_key)
    left_s, life_s = access.expiry.get(ACCESS_TOKEN, (0.0, 0.0))
    text = _open_secret(connector_key, access.sealed, ACCESS_TOKEN)
    return Token(text=text, left_s=left_s, life_s=life_s)


def _refresh(session: Session, connector: connectors.Connector) -> ConfigurationError | None:
    """Request and store new tokens; return a refusal, because the pause must be committed before it is raised."""
    if connector.state == "paused" and connector.pause_reason in _REFUSALS:
        return ConfigurationError(str(connector.pause_reason))
    sealed = connectors.credentials_of(session, connector.key)
    try:
        grant = oauth_client(connector.key).refresh(_open_secret(connector.key, sealed, REFRESH_TOKEN))
        origin = granted_origin(grant)
    except ConfigurationError as refusal:
        connectors.pause(session, connector.key, refusal.reason)
        return refusal
    if origin:
        connector.pipedrive_company = origin
    keep_grant(session, connector.key, grant)
    logger().info("pipedrive.tokens.renewed", connector_id=connector.id)
    return None


def hull_client(organization: str, connector_id: str, secret: str) -> HullClient:
    """Return a client with credentials that are not stored yet, to check them.

    Raises: ConfigurationError("host_refused").
    """
    check_organization(organization)
    return HullClient(
        http_session(hull_guard(settings())),
        organization=organization,
        connector_id=connector_id,
        secret=secret,
        protocol=settings().hull_protocol,
    )


def export_downloads(connector_key: int | None = None) -> Downloads:
    """Return the client that downloads Hull's export files; it records outages for the connector."""
    return Downloads(
        Guard.of(settings().hull_export_hosts, is_http=settings().hull_protocol == "http"),
        make_session=new_session,
        gate=None if connector_key is None else OutageGate(connector_key),
    )


def notification_verifier() -> NotificationVerifier:
    """Return the verifier of Hull's notifications. Share it: it caches Hull's keys."""
    environment = settings()
    listed = (*environment.hull_key_hosts, *environment.hull_organizations)
    guard = Guard.of(listed, is_http=environment.hull_protocol == "http")
    return NotificationVerifier(
        new_session(guard, connections=CONNECTIONS),
        guard=guard,
        key_path=environment.hull_key_path,
        audiences=(environment.public_url, f"{environment.public_url}/smart-notifier"),
    )


def open_secrets(session: Session, connector_key: int) -> dict[str, str]:
    """Return name → decrypted secret."""
    return unseal(connector_key, connectors.credentials_of(session, connector_key))


def unseal(connector_key: int, sealed: dict[str, bytes]) -> dict[str, str]:
    """Return name → decrypted secret for sealed secrets."""
    return {name: _open_secret(connector_key, sealed, name) for name in sealed}


def _open_secret(connector_key: int, sealed: dict[str, bytes], name: str) -> str:
    if name not in sealed:
        raise ConfigurationError("credential_missing", name)
    return Vault(settings().secret_keys).open(connector_key, name, sealed[name])


def _pipedrive_url(company: str | None) -> str:
    if configured := settings().pipedrive_api_url:
        return configured
    return check_api_domain(company or "https://api.pipedrive.com")


def _limiter(token: str) -> BurstLimiter | None:
    """Return the limiter of a token: Pipedrive counts by token, so connectors with the same token share it.

    The key does not reveal the token.
    """
    limit = settings().pipedrive_burst_limit
    if not limit:
        return None
    key = hashlib.blake2b(token.encode(), digest_size=12, person=b"burst").hexdigest()
    return BurstLimiter(shared_redis(), key=f"token:{key}", limit=limit)


def open_budget(session: Session, connector_key: int, *, lane: str = Lane.CONTROL) -> TokenBudget:
    """Return the daily budget of the connector's company for one lane; all connectors of a company share it."""
    return _budget(token_ledger.terms(session, connector_key), lane)


def _budget(terms: Terms, lane: str) -> TokenBudget:
    return TokenBudget(
        shared_redis(),
        company=hashlib.blake2b(terms.company.encode(), digest_size=12, person=b"budget").hexdigest(),
        lane=lane,
        ceiling=terms.allowance.ceiling(Lane(lane)),
        daily_tokens=terms.allowance.daily_tokens,
        ledger=partial(token_ledger.read_spent_today, terms.company),
    )


def alert_sinks() -> dict[str, Sink]:
    """Return name → sink, for the alert sinks in the settings."""
    chosen = settings()
    sinks: dict[str, Sink] = {}
    if chosen.alert_webhook_url:
        guard = Guard.of_urls(chosen.alert_webhook_url)
        sinks["webhook"] = WebhookSink(chosen.alert_webhook_url, partial(new_session, guard))
    if chosen.alert_email_to and chosen.smtp_url:
        sender = chosen.alert_email_from or chosen.alert_email_to[0]
        sinks["email"] = MailSink(
            Relay(url=chosen.smtp_url, password=chosen.smtp_password), sender, chosen.alert_email_to
        )
    return sinks
