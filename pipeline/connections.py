"""The connections of this process: HTTP sessions with the hosts that they may call, and the Redis that all workers share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import requests
from redis import Redis

from pipeline.clients.ssrf import Guard, guarded_session
from pipeline.settings import Settings, settings

CONNECTIONS = 8
"""Pooled connections per process and host."""

_sessions: dict[Guard, requests.Session] = {}
_sessions_pid = 0
_make_session: Callable[[], requests.Session] | None = None


def use_http(make: Callable[[], requests.Session] | None) -> None:
    """Use sessions created by `make` for all connectors, in tests; None uses the network again."""
    global _make_session  # noqa: PLW0603 - one per process
    _make_session = make
    _sessions.clear()


def http_session(guard: Guard | None = None) -> requests.Session:
    """Return this process's pooled session for the hosts of a guard, by default Pipedrive. Processes share no sockets."""
    global _sessions_pid  # noqa: PLW0603 - the sessions of one process
    if _sessions_pid != os.getpid():
        _sessions.clear()
        _sessions_pid = os.getpid()
    guard = guard or pipedrive_guard(settings())
    if guard not in _sessions:
        _sessions[guard] = new_session(guard, connections=CONNECTIONS, trusts_environment=True)
    return _sessions[guard]


def new_session(guard: Guard, *, connections: int = 1, trusts_environment: bool = False) -> requests.Session:
    """Return a new session for the hosts of a guard, or one of `use_http`."""
    if _make_session is not None:
        return _make_session()
    return guarded_session(guard, connections=connections, trusts_environment=trusts_environment)


def pipedrive_guard(environment: Settings) -> Guard:
    """Return the guard of Pipedrive clients: companies of pipedrive.com, and PIPEDRIVE_API_URL."""
    return replace(Guard.of_urls(environment.pipedrive_api_url, environment.pipedrive_oauth_url), names=None)


def hull_guard(environment: Settings) -> Guard:
    """Return the guard of Hull clients: organizations at public hosts, and HULL_ORGANIZATIONS."""
    is_http = environment.hull_protocol == "http"
    organizations = Guard.of(environment.hull_organizations, any_host=True, is_http=is_http)
    firehose = Guard.of_urls(environment.hull_firehose_url)
    return replace(organizations, places=organizations.places | firehose.places)


def check_organization(organization: str) -> None:
    """Reject a host that is not a permitted Hull organization, without a DNS lookup.

    Raises: ConfigurationError("host_refused").
    """
    environment = settings()
    hull_guard(environment).check_host(organization, scheme=environment.hull_protocol)


_redis: Redis | None = None
_redis_key: tuple[int, str] | None = None


def shared_redis() -> Redis:
    """Return this process's client of the Redis that all workers share, for limits."""
    global _redis, _redis_key  # noqa: PLW0603 - one connection pool per process
    key = (os.getpid(), settings().redis_url or "")
    if _redis is None or _redis_key != key:
        _redis = Redis.from_url(key[1], socket_timeout=2, socket_connect_timeout=2)
        _redis_key = key
    return _redis
