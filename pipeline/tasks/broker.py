"""Extends kombu's transports: one Redis client per channel, and checks of consumers that no longer answer.

The event loop of a worker checks its consumers; Flower and beat's remote control have none and would wait forever.
kombu creates a client for every message, acknowledgement and event, at 0.2 ms each. A client is not a connection: it
takes one from the channel's pool for each command, so any number of callers may share it.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from kombu.transport import pyamqp, redis


class KeptClientChannel(redis.Channel):
    """A channel that makes its client once for as long as its pool lives."""

    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()  # type: ignore[no-untyped-call]
        return self._kept


class CheckingPoller(redis.MultiChannelPoller):
    """A poller that pings its subscriptions also where no event loop does. Two pings without an answer end a connection, and the
    next poll subscribes again."""

    _check_at = float("-inf")

    def maybe_check_brpop_health(self) -> None:
        super().maybe_check_brpop_health()  # type: ignore[no-untyped-call]
        if self._in_protected_read and monotonic() >= self._check_at:
            every_s = min((channel.health_check_interval for channel in self._channels), default=0)
            self._check_at = monotonic() + every_s
            self.maybe_check_subclient_health()  # type: ignore[no-untyped-call]


class CheckedConnection(pyamqp.Connection):
    """A connection to RabbitMQ that sends and expects heartbeats also where no event loop does: after each wait for nothing."""

    def drain_events(self, timeout: float | None = None) -> Any:
        try:
            return super().drain_events(timeout)
        except TimeoutError:
            if timeout:
                self.heartbeat_tick()
            raise


def extend_transports() -> None:
    """Have every connection that kombu opens from now on use these."""
    pyamqp.Transport.Connection = CheckedConnection
    redis.Transport.Channel = KeptClientChannel
    redis.MultiChannelPoller = CheckingPoller  # type: ignore[misc]  # the transport offers no other place
