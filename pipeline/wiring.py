"""The one place where the two pipes meet: the clients of a connector, built from what the database holds of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import requests
from redis import Redis
from requests.adapters import HTTPAdapter
from sqlalchemy.orm import Session

from db import connector as connectors
from db import token_ledger
from pipeline.clients.budget import Budget
from pipeline.clients.hosts import check_api_url
from pipeline.clients.hull import HullClient
from pipeline.clients.hull_notifications import NotificationRefused as NotificationRefused  # noqa: PLC0414 - for `web`
from pipeline.clients.hull_notifications import NotificationVerifier as NotificationVerifier  # noqa: PLC0414 - for `web`
from pipeline.clients.limiter import BurstLimiter
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.clients.wire import Exchange
from pipeline.domain.kinds import Lane
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings, settings
from pipeline.telemetry import logger
from pipeline.vault import Vault

CONNECTIONS = 8
"""Kept connections per process and host; a process works on one batch at a time, its lease keeper on none."""


@dataclass(slots=True)
class Calls:
    """What the remote systems were asked meanwhile: requests, and tokens of Pipedrive's daily budget, which go to the ledger."""

    key: int
    lane: Lane
    requests: int = 0
    tokens: int = 0
    last: Exchange | None = None

    def note(self, exchange: Exchange) -> None:
        self.requests += 1
        self.tokens += exchange.tokens
        self.last = exchange
        if exchange.operation:
            token_ledger.owe(self.key, self.lane, exchange.operation, exchange.tokens)
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


_session: requests.Session | None = None
_session_pid = 0
_make_session: Callable[[], requests.Session] | None = None


def use_http(make: Callable[[], requests.Session] | None) -> None:
    """Have every connector speak through sessions made by `make`; None goes back to the network."""
    global _make_session, _session
    _make_session, _session = make, None


def http_session() -> requests.Session:
    """The pooled session of this very process: sockets are never shared across a fork."""
    global _session, _session_pid
    if _session is None or _session_pid != os.getpid():
        _session, _session_pid = (_make_session or _network_session)(), os.getpid()
    return _session


def _network_session() -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS, max_retries=0))
    return session


_redis: Redis | None = None
_redis_key: tuple[int, str] | None = None


def shared_redis() -> Redis:
    """The Redis that all workers share, for limits."""
    global _redis, _redis_key  # noqa: PLW0603 - one connection pool per process
    key = (os.getpid(), settings().redis_url or "")
    if _redis is None or _redis_key != key:
        _redis = Redis.from_url(key[1], socket_timeout=2, socket_connect_timeout=2)
        _redis_key = key
    return _redis


def open_connector(session: Session, connector_key: int, *, lane: str = Lane.CONTROL) -> Wired:
    """Build the clients of one connector; `lane` names who spends of the daily budget.

    Raises: ConfigurationError when a credential is missing or cannot be read.
    """
    access, environment, calls = connectors.access(session, connector_key), settings(), Calls(connector_key, Lane(lane))
    open_secret = partial(_open_secret, connector_key, access.sealed, environment)
    token = open_secret("pipedrive_api_token")
    return Wired(
        key=connector_key,
        id=access.id,
        organization=access.hull_organization,
        pipedrive=PipedriveClient(
            http_session(),
            base_url=_pipedrive_url(access.pipedrive_company, environment),
            auth={"x-api-token": token},
            limiter=_limiter(token, environment),
            budget=open_budget(session, connector_key, lane=lane),
            on_call=calls.note,
        ),
        hull=HullClient(
            http_session(),
            organization=access.hull_organization,
            connector_id=access.id,
            secret=open_secret("hull_secret"),
            protocol=environment.hull_protocol,
            firehose_url=environment.hull_firehose_url,
            on_call=calls.note,
        ),
        calls=calls,
    )


def notification_verifier() -> NotificationVerifier:
    """What tells whether a notification is from Hull; it keeps Hull's keys, so make one and share it."""
    environment = settings()
    return NotificationVerifier(
        http_session(), key_hosts=(*environment.hull_key_hosts, *environment.hull_organizations)
    )


def open_secrets(session: Session, connector_key: int, environment: Settings) -> dict[str, str]:
    """Name → secret, decrypted."""
    sealed = connectors.credentials_of(session, connector_key)
    return {name: _open_secret(connector_key, sealed, environment, name) for name in sealed}


def _open_secret(connector_key: int, sealed: dict[str, bytes], environment: Settings, name: str) -> str:
    if name not in sealed:
        raise ConfigurationError("credential_missing", name)
    return Vault(environment.secret_keys).open(connector_key, name, sealed[name])


def _pipedrive_url(company: str | None, environment: Settings) -> str:
    if environment.pipedrive_api_url:
        return environment.pipedrive_api_url
    return check_api_url(company or "https://api.pipedrive.com")


def _limiter(token: str, environment: Settings) -> BurstLimiter | None:
    """Pipedrive counts by token, so connectors that share one share its limit; the key does not give the token away."""
    if not environment.pipedrive_burst_limit:
        return None
    key = hashlib.blake2b(token.encode(), digest_size=12, person=b"burst").hexdigest()
    return BurstLimiter(shared_redis(), key=f"token:{key}", limit=environment.pipedrive_burst_limit)


def open_budget(session: Session, connector_key: int, *, lane: str = Lane.CONTROL) -> Budget:
    """The day of the connector's company, as this lane may use it; Pipedrive counts by company, so connectors of one share it."""
    terms = token_ledger.terms(session, connector_key)
    return Budget(
        shared_redis(),
        company=hashlib.blake2b(terms.company.encode(), digest_size=12, person=b"budget").hexdigest(),
        lane=lane,
        ceiling=terms.allowance.ceiling(Lane(lane)),
        ledger=partial(token_ledger.ask_spent_today, terms.company),
    )
