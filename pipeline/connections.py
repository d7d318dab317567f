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
"""Kept connections per process and host; a process works on one batch at a time, its lease keeper on none."""


_sessions: dict[Guard, requests.Session] = {}
_sessions_pid = 0
_make_session: Callable[[], requests.Session] | None = None


def use_http(make: Callable[[], requests.Session] | None) -> None:
    """Have every connector speak through sessions made by `make`; None goes back to the network."""
    global _make_session  # noqa: PLW0603 - one way out per process
    _make_session = make
    _sessions.clear()


def http_session(guard: Guard | None = None) -> requests.Session:
    """The pooled session of this very process for what a guard allows, by default Pipedrive: sockets are never shared across a
    fork."""
    global _sessions_pid  # noqa: PLW0603 - the sessions of one process
    if _sessions_pid != os.getpid():
        _sessions.clear()
        _sessions_pid = os.getpid()
    guard = guard or pipedrive_guard(settings())
    if guard not in _sessions:
        _sessions[guard] = new_session(guard, connections=CONNECTIONS, trusts_environment=True)
    return _sessions[guard]


def new_session(guard: Guard, *, connections: int = 1, trusts_environment: bool = False) -> requests.Session:
    """Return a session of its own for what a guard allows, or one that leads where `use_http` says."""
    if _make_session is not None:
        return _make_session()
    return guarded_session(guard, connections=connections, trusts_environment=trusts_environment)


def pipedrive_guard(environment: Settings) -> Guard:
    """The hosts that Pipedrive clients may call: companies of pipedrive.com, and PIPEDRIVE_API_URL."""
    return replace(Guard.of_urls(environment.pipedrive_api_url, environment.pipedrive_oauth_url), names=None)


def hull_guard(environment: Settings) -> Guard:
    """What the clients of Hull may call: organizations at public hosts, and the places of HULL_ORGANIZATIONS."""
    is_http = environment.hull_protocol == "http"
    organizations = Guard.of(environment.hull_organizations, any_host=True, is_http=is_http)
    firehose = Guard.of_urls(environment.hull_firehose_url)
    return replace(organizations, places=organizations.places | firehose.places)


def check_organization(organization: str) -> None:
    """Refuse what is not the host of a Hull organization that may be called; nothing is looked up.

    Raises: ConfigurationError("host_refused").
    """
    environment = settings()
    hull_guard(environment).check_host(organization, scheme=environment.hull_protocol)


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
