"""Closes what Flower leaves open: its port on all addresses, and its metrics without a login."""

from __future__ import annotations

import flower.options  # noqa: F401 - it defines the options
from flower.views.monitor import Metrics
from tornado.options import options
from tornado.web import authenticated

ADDRESS = "127.0.0.1"


def close() -> None:
    """Have Flower listen to this machine, unless FLOWER_ADDRESS or --address say otherwise, and ask for its login everywhere.

    `/healthcheck` alone answers anybody: it says OK.
    """
    options.address = ADDRESS
    Metrics.get = authenticated(Metrics.get)
