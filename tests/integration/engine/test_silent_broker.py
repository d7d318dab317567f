"""A broker's host that no longer answers: publishing ends, and consumers notice and come back, in a worker and outside of one.

RabbitMQ is the one of TEST_AMQP_URL, else one that answers on this machine.
"""

from __future__ import annotations

import os
import runpy
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import OperationalError

import pipeline.settings
from benchmarks.tcp_proxy import TcpProxy
from pipeline.tasks.broker import extend_transports

ANSWER_S = 0.3
ENDS_WITHIN_S = 10.0
"""Much longer than the sum of the shortened times: the test requires only that the wait ends."""
ONCE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
CONFIG = Path(__file__).parents[3] / "celeryconfig.py"


def options_of(broker_url: str) -> dict[str, Any]:
    """Return the values of celeryconfig for this broker."""
    before = pipeline.settings.settings()
    pipeline.settings.use(before.replace(broker_url=broker_url))
    try:
        return runpy.run_path(str(CONFIG))
    finally:
        pipeline.settings.use(before)


@pytest.fixture
def redis_proxy(servers: pipeline.settings.Settings) -> Iterator[TcpProxy]:
    url = urlsplit(servers.redis_url)
    target = unquote(url.path) if url.scheme == "unix" else (url.hostname or "127.0.0.1", url.port or 6379)
    extend_transports()
    with TcpProxy(target) as made:
        yield made


@pytest.fixture
def amqp_proxy() -> Iterator[TcpProxy]:
    url = urlsplit(os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//"))
    target = (url.hostname or "127.0.0.1", url.port or 5672)
    extend_transports()
    try:
        with Connection(url.geturl(), connect_timeout=2) as found:
            found.connect()
    except OSError:
        pytest.skip("needs RabbitMQ, and none answers")
    with TcpProxy(target) as made:
        yield made


def redis_connection(proxy: TcpProxy, **options: Any) -> Connection:
    url = f"redis://127.0.0.1:{proxy.port}/9"
    chosen = options_of(url)["broker_transport_options"] | {"global_keyprefix": f"{uuid.uuid4()}:"} | options
    return Connection(url, transport_options=chosen)


def amqp_connection(proxy: TcpProxy, **options: Any) -> Connection:
    url = f"amqp://guest:guest@127.0.0.1:{proxy.port}//"
    chosen = options_of(url)["broker_transport_options"] | options
    return Connection(url, transport_options=chosen, connect_timeout=ANSWER_S, heartbeat=1)


def test_every_wait_for_redis_is_limited(redis_proxy: TcpProxy) -> None:
    with redis_connection(redis_proxy) as connection:
        held = connection.default_channel.client.connection_pool.connection_kwargs

        assert 0 < held["socket_timeout"] <= 5
        assert 0 < held["socket_connect_timeout"] <= 5
        assert 0 < held["health_check_interval"] <= 5


def test_every_wait_for_rabbitmq_is_limited() -> None:
    config = options_of("amqp://broker.example")

    assert config["broker_transport_options"]["confirm_publish"]
    assert 0 < config["broker_transport_options"]["read_timeout"] <= 5
    assert 0 < config["broker_transport_options"]["write_timeout"] <= 5
    assert 0 < config["broker_heartbeat"] <= 6
    assert 0 < config["broker_connection_timeout"] <= 5


def test_publishing_to_a_silent_redis_ends(redis_proxy: TcpProxy) -> None:
    with redis_connection(redis_proxy, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S) as connection:
        _publishing_ends(connection, redis_proxy)


def test_publishing_to_a_silent_rabbitmq_ends(amqp_proxy: TcpProxy) -> None:
    with amqp_connection(amqp_proxy, read_timeout=ANSWER_S, write_timeout=ANSWER_S) as connection:
        _publishing_ends(connection, amqp_proxy)


def _publishing_ends(connection: Connection, proxy: TcpProxy) -> None:
    queue = Queue(f"silent-{uuid.uuid4()}", durable=False, expires=60)
    producer = Producer(connection)

    def publish() -> None:
        producer.publish({"id": 1}, routing_key=queue.name, retry=True, retry_policy=ONCE, declare=[queue])

    publish()
    proxy.silence()
    started = time.monotonic()
    with pytest.raises((OperationalError, OSError)):
        publish()
    assert time.monotonic() - started < ENDS_WITHIN_S
    proxy.replace()
    publish()


def test_a_subscription_without_an_event_loop_is_restored(redis_proxy: TcpProxy) -> None:
    """Flower and the remote control of beat use such a subscription."""
    exchange = Exchange("silent", type="fanout")
    queue = Queue("", exchange, exclusive=True, auto_delete=True)
    got: list[Any] = []
    with redis_connection(redis_proxy, health_check_interval=ANSWER_S, socket_timeout=1) as connection:
        other = connection.clone()
        with other, Consumer(connection, [queue], callbacks=[lambda body, _message: got.append(body)], no_ack=True):
            _drain(connection, other, exchange, got, "before")
            redis_proxy.replace()  # the open connections are silent from here on
            _drain(connection, other, exchange, got, "after")


def _drain(connection: Connection, other: Connection, exchange: Exchange, got: list[Any], published: str) -> None:
    """Publish the message repeatedly until the consumer has received it."""
    ends_at = time.monotonic() + ENDS_WITHIN_S
    while published not in got:
        assert time.monotonic() < ends_at, "the consumer stays deaf"
        Producer(other, exchange).publish(published, retry=True, retry_policy=ONCE)
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.1)


def test_a_consumer_of_rabbitmq_without_an_event_loop_detects_silence(amqp_proxy: TcpProxy) -> None:
    queue = Queue(f"silent-{uuid.uuid4()}", durable=False, expires=60)
    with amqp_connection(amqp_proxy) as connection:
        Consumer(connection, [queue]).consume()
        amqp_proxy.silence()
        with pytest.raises(connection.connection_errors):
            _wait_for_nothing(connection)
        connection.collect()


def _wait_for_nothing(connection: Connection) -> None:
    ends_at = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < ends_at:
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.1)
