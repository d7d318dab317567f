"""A channel to Redis keeps its client for as long as its pool lives."""

from __future__ import annotations

from typing import Any

from kombu import Connection

from pipeline.tasks.broker import KeptClientChannel, extend_transports


class Pool:
    """What a client takes its connections from."""

    connection_kwargs: dict[str, Any] = {}  # noqa: RUF012 - never written to


class Client:
    def __init__(self, connection_pool: Pool) -> None:
        self.connection_pool = connection_pool


def test_connections_use_such_channels() -> None:
    extend_transports()

    assert Connection("redis://127.0.0.1/0").create_transport().Channel is KeptClientChannel


def test_one_client_is_made_for_one_pool() -> None:
    channel = KeptClientChannel.__new__(KeptClientChannel)
    channel.Client, channel._pool = Client, Pool()
    first = channel._create_client()

    assert channel._create_client() is first

    channel._pool = Pool()  # as after a lost connection

    assert channel._create_client().connection_pool is channel._pool
