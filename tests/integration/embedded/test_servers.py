"""What the embedded servers are to SQLAlchemy, redis-py and kombu, and to nobody else."""

from __future__ import annotations

import os
import stat

from kombu.connection import Connection

from pipeline import embedded
from pipeline.embedded import folders
from pipeline.settings import Settings
from tests.integration.embedded.users import query, redis_of


def test_the_database_url_serves_sqlalchemy(shared: Settings) -> None:
    servers = embedded.ensure(shared)

    found = query(servers, "SELECT current_database(), current_setting('server_version_num')::int / 10000, lower('É')")

    assert found == [("pipeline", 18, "é")]


def test_the_redis_url_serves_redis_py(shared: Settings) -> None:
    with redis_of(embedded.ensure(shared)) as client:
        assert client.set("seen", "yes")
        assert client.get("seen") == "yes"


def test_the_broker_url_serves_kombu(shared: Settings) -> None:
    with Connection(embedded.ensure(shared).broker_url) as connection:  # type: ignore[no-untyped-call]
        queue = connection.SimpleQueue("embedded")
        queue.put({"batch": 1})

        message = queue.get(timeout=10)

        assert message.payload == {"batch": 1}
        message.ack()
        queue.close()


def test_queues_and_shared_buckets_lie_in_different_databases(shared: Settings) -> None:
    servers = embedded.ensure(shared)

    with (
        Connection(servers.broker_url) as connection,  # type: ignore[no-untyped-call]
        connection.SimpleQueue("apart") as queue,
    ):
        queue.put("a message")
        with redis_of(servers) as client:
            assert not client.exists("apart")
        queue.clear()


def test_complete_fills_in_what_the_settings_leave_open(shared: Settings) -> None:
    servers = embedded.ensure(shared)

    found = embedded.complete(shared.replace(broker_url="amqp://rabbit.example"))

    assert (found.database_url, found.redis_url) == (servers.database_url, servers.redis_url)
    assert found.broker_url == "amqp://rabbit.example"


def test_postgres_keeps_its_promises_and_listens_to_nobody_else(shared: Settings) -> None:
    servers = embedded.ensure(shared)
    names = ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "jit", "max_connections")

    found = query(servers, "SELECT " + ", ".join(f"current_setting('{name}')" for name in names))

    assert found == [("on", "on", "on", "", "off", "100")]


def test_valkey_keeps_its_promises_and_listens_to_nobody_else(shared: Settings) -> None:
    with redis_of(embedded.ensure(shared)) as client:
        found = client.config_get("port", "appendonly", "appendfsync", "maxmemory-policy")

    assert found == {"port": "0", "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}


def test_socket_paths_stay_short_in_a_deep_clone(shared: Settings) -> None:
    embedded.ensure(shared)
    found = folders.find(shared.data_dir)

    assert len(str(shared.data_dir)) > 100
    assert found
    for path in (found.postgres_socket, found.valkey_socket):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert len(os.fsencode(path)) < 100


def test_only_the_servers_account_reaches_the_sockets_and_the_data(shared: Settings) -> None:
    embedded.ensure(shared)
    found = folders.find(shared.data_dir)

    assert found
    for path in (found.sockets, found.servers / "postgres", found.servers / "valkey"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
