"""The number of open failures, without counting them: rows that add up, written by triggers on the table of failures.

Each statement that opens, updates or closes failures adds a row for each kind with a changed number, in its own transaction. So
the sum is exact for every reader, and writers never wait for each other. A tick merges rows of one kind into one.
"""

from __future__ import annotations

from sqlalchemy import Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, RowId


class FailureCount(Base):
    """n  how many more of this kind are open, or fewer; the sum of all rows of a kind is their number"""

    __tablename__ = "failure_counts"

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    direction: Mapped[str]
    entity: Mapped[str]
    reason: Mapped[str]
    n: Mapped[int]


_COUNT = text("""
    SELECT entity, reason, sum(n)::bigint AS n FROM failure_counts
     WHERE connector_key = :c GROUP BY entity, reason HAVING sum(n) > 0""")


def count_open(session: Session, connector_key: int) -> dict[tuple[str, str], int]:
    """(entity, reason) → open failures."""
    return {(row.entity, row.reason): row.n for row in session.execute(_COUNT, {"c": connector_key})}


_MERGE = text("""
    WITH several AS MATERIALIZED (
             SELECT connector_key, kind, direction, entity, reason FROM failure_counts
              GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1 OR sum(n) = 0),
         gone AS (
             DELETE FROM failure_counts f USING several s
              WHERE (f.connector_key, f.kind, f.direction, f.entity, f.reason)
                  = (s.connector_key, s.kind, s.direction, s.entity, s.reason)
             RETURNING f.*)
    INSERT INTO failure_counts (connector_key, kind, direction, entity, reason, n)
    SELECT connector_key, kind, direction, entity, reason, sum(n) FROM gone GROUP BY 1, 2, 3, 4, 5 HAVING sum(n) <> 0""")
"""Of two concurrent merges, each moves the rows that it deletes itself."""


def merge(session: Session) -> None:
    """Merge the rows of each kind into one; the sums stay as they are."""
    session.execute(_MERGE)
