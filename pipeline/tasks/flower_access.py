"""Closes what Flower leaves open: its port on all addresses, and its metrics without a login."""

from __future__ import annotations

from typing import Any

from flower.options import options
from flower.views.monitor import Metrics

from pipeline.settings import settings

ADDRESS = "127.0.0.1"


def close() -> None:
    """Make Flower listen to this machine only, unless FLOWER_ADDRESS or --address is set, and require its login everywhere.

    Flower reads FLOWER_BASIC_AUTH itself, but not FLOWER_BASIC_AUTH_FILE: without this, it would need no password.

    Only `/healthcheck` answers without a login: it returns OK.
    """
    options.address = ADDRESS
    login = settings().flower_basic_auth
    if login is not None:
        options.basic_auth = [login]
    show = Metrics.get

    async def get(handler: Any) -> None:
        if handler.current_user:  # raises 401 for a wrong password, returns None for an unknown user
            await show(handler)
        else:
            handler.write_error(401)

    Metrics.get = get
