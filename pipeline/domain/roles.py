"""Roles: viewers read, operators act on records and runs, admins also change settings and operators."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Each may do what those before it may."""

    VIEWER = "viewer"
    """Sees everything but secrets."""
    OPERATOR = "operator"
    """Fetches, sends, replays, discards, pauses, resumes."""
    ADMIN = "admin"
    """Adds connectors and operators, changes credentials and settings."""

    def may(self, needed: Role) -> bool:
        """Whether this role includes the one that is needed."""
        order = list(Role)
        return order.index(self) >= order.index(needed)
