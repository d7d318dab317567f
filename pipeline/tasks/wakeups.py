"""Request control work from a worker now instead of at the next tick. If the broker is down, the tick does it later."""

from __future__ import annotations

from pipeline.tasks.app import app
from pipeline.telemetry import logger


def wake_control(name: str, countdown_s: float | None = None) -> None:
    """Request a control task now; if the broker is down, its tick follows soon."""
    try:
        app.send_task(f"control.{name}", countdown=countdown_s)
    except Exception as unreachable:  # noqa: BLE001 - whatever the broker's client raises, the tick will come
        logger().warning("broker.unreachable", error=type(unreachable).__name__)


def request_webhook_check(connector_key: int) -> bool:
    """Have a worker check the webhooks of a connector now, whenever that was last done; return False if the broker is down."""
    try:
        app.send_task("control.ensure_webhooks", kwargs={"connector_key": connector_key})
    except Exception as unreachable:  # noqa: BLE001 - whatever the broker's client raises
        logger().warning("broker.unreachable", error=type(unreachable).__name__)
        return False
    return True
