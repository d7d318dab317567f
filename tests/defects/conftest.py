"""The door of the web app, as the guide's tests have it."""

from __future__ import annotations

from tests.guide.conftest import client

__all__ = ["client"]
