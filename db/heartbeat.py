"""Heartbeats: when what must happen again and again last happened."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base
from db.copy import texts

LIVE_PROCESS = "live process "
"""With it begin the names of processes that carry out live batches; the rest of the name is the node's and its number there."""
ALIVE_S = 20
"""A process without a heartbeat for so long has ended; it gives one every `EVERY_S` seconds."""
EVERY_S = 5
"""A younger heartbeat is left as it is: a sign of life is worth no write to the disk every two seconds."""


class Heartbeat(Base):
    """name  `sweep`, `beat` (a tick that came from beat, and not from a starting worker), `alerts`, `live process NODE NUMBER`,
    `unknown ids of CONNECTOR_KEY` (until when its share is spent, see `take_share`)."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


_NOTE = text("""
    INSERT INTO heartbeats (name, at) SELECT name, now() FROM unnest(CAST(:names AS text[])) AS name
        ON CONFLICT (name) DO UPDATE SET at = excluded.at
     WHERE heartbeats.at < now() - make_interval(secs => :every_s)""")


def note_heartbeats(session: Session, names: Iterable[str]) -> None:
    session.execute(_NOTE, {"names": texts(names), "every_s": EVERY_S})


_SPENT_UNTIL = text("""
    INSERT INTO heartbeats (name, at) VALUES (:name, now())
        ON CONFLICT (name) DO UPDATE SET at = greatest(heartbeats.at, now())
 RETURNING extract(epoch FROM at - now())""")
_SPEND = text("UPDATE heartbeats SET at = at + make_interval(secs => :spent_s) WHERE name = :name")


def take_share(session: Session, name: str, wanted: int, *, most: int, every_s: float) -> int:
    """Return how many of `wanted` may happen now, of `most` in `every_s` seconds.

    What is kept is the moment at which all that happened so far is made up for (a leaky bucket).
    """
    spent_s = float(session.execute(_SPENT_UNTIL, {"name": name}).scalar_one())
    taken = max(0, min(wanted, int((every_s - spent_s) * most / every_s)))
    session.execute(_SPEND, {"name": name, "spent_s": taken * every_s / most})
    return taken


_FORGET_ENDED = text("""
    DELETE FROM heartbeats WHERE starts_with(name, :live_process) AND at < now() - make_interval(secs => 10 * :alive_s)""")


def forget_ended_processes(session: Session) -> int:
    """Delete the heartbeats of processes that ended without a word; returns how many."""
    found = session.execute(_FORGET_ENDED, {"live_process": LIVE_PROCESS, "alive_s": ALIVE_S})
    return cast("CursorResult[Any]", found).rowcount


def heartbeats(session: Session) -> dict[str, datetime]:
    """Name → when it last happened, give or take `EVERY_S`."""
    return {row.name: row.at for row in session.execute(select(Heartbeat.name, Heartbeat.at))}
