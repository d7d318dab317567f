"""How much of what Hull told still waits: asked with every notification, so it must cost next to nothing."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

PER_NOTIFICATION = 100
"""Messages to a notification, as Hull sends them by default: those that are not folded yet are not looked into."""

_WAITING = text("""
    SELECT (SELECT count(*) FROM (SELECT 1 FROM deliveries
                                   WHERE state = 'new' AND connector_key = :key AND source = 'hull' LIMIT :notifications) d)
           * :each
         + (SELECT count(*) FROM (SELECT 1 FROM changes
                                   WHERE connector_key = :key AND direction = 'outgoing' LIMIT :most) c)""")


def waiting_outgoing(session: Session, connector_key: int, *, most: int) -> int:
    """Messages that wait to be folded, by estimate, and changes that wait to be sent; counted up to `most` each."""
    scope = {
        "key": connector_key,
        "most": most,
        "notifications": most // PER_NOTIFICATION + 1,
        "each": PER_NOTIFICATION,
    }
    return int(session.execute(_WAITING, scope).scalar_one())
