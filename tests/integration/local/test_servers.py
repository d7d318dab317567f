"""The embedded servers work with SQLAlchemy, redis-py and kombu, and accept no other connections."""

from __future__ import annotations

import os
import stat

from kombu.connection import Connection

from pipeline.local import folders, servers
from pipeline.settings import Settings
from tests.integration.local.processes import query, redis_of


def test_the_database_url_serves_sqlalchemy(running: Settings) -> None:
    found = query(running, "SELECT current_database(), current_setting('server_version_num')::int / 10000, lower('É')")

    assert found == [("pipeline", 18, "é")]


def test_the_redis_url_serves_redis_py(running: Settings) -> None:
    with redis_of(running) as client:
        assert client.set("seen", "yes")
        assert client.get("seen") == "yes"


def test_the_broker_url_serves_kombu(running: Settings) -> None:
    with Connection(running.broker_url) as connection:  # type: ignore[no-untyped-call]
        queue = connection.SimpleQueue("embedded")
        queue.put({"batch": 1})

        message = queue.get(timeout=10)

        assert message.payload == {"batch": 1}
        message.ack()
        queue.close()


def test_queues_and_shared_buckets_lie_in_different_databases(running: Settings) -> None:
    with (
        Connection(running.broker_url) as connection,  # type: ignore[no-untyped-call]
        connection.SimpleQueue("apart") as queue,
    ):
        queue.put("a message")
        with redis_of(running) as client:
            assert not client.exists("apart")
        queue.clear()


def test_complete_fills_in_what_the_settings_leave_open(shared: Settings, running: Settings) -> None:
    found = servers.complete(shared.replace(broker_url="amqp://rabbit.example"))

    assert (found.database_url, found.redis_url) == (running.database_url, running.redis_url)
    assert found.broker_url == "amqp://rabbit.example"


def test_postgres_has_its_settings_and_listens_only_to_its_socket(running: Settings) -> None:
    names = ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "jit", "max_connections")

    found = query(running, "SELECT " + ", ".join(f"current_setting('{name}')" for name in names))

    assert found == [("on", "on", "on", "", "off", "100")]


def test_valkey_has_its_settings_and_listens_only_to_its_socket(running: Settings) -> None:
    with redis_of(running) as client:
        found = client.config_get("port", "appendonly", "appendfsync", "maxmemory-policy")

    assert found == {"port": "0", "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}


def test_socket_paths_stay_short_in_a_deep_clone(running: Settings) -> None:
    found = folders.find(running.data_dir)

    assert len(str(running.data_dir)) > 100
    assert found
    for path in (found.postgres_socket, found.valkey_socket):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert len(os.fsencode(path)) < 100


def test_only_the_servers_account_reaches_the_sockets_and_the_data(running: Settings) -> None:
    found = folders.find(running.data_dir)

    assert found
    for path in (found.sockets, found.servers / "postgres", found.servers / "valkey"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
