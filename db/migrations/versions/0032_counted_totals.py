"""Numbers of open failures and of all events, kept instead of counted for each scrape and page

Expand only: the version before writes failures as before, and the triggers count them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

KIND = "connector_key, kind, direction, entity, reason"
FUNCTION = f"""
    CREATE FUNCTION count_open_failures() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO failure_counts ({KIND}, n)
            SELECT {KIND}, count(*) FROM new_rows WHERE state = 'open' GROUP BY {KIND};
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO failure_counts ({KIND}, n)
            SELECT {KIND}, -count(*) FROM old_rows WHERE state = 'open' GROUP BY {KIND};
        ELSE
            INSERT INTO failure_counts ({KIND}, n)
            SELECT {KIND}, sum(one) FROM (
                   SELECT {KIND}, 1 AS one FROM new_rows WHERE state = 'open'
                    UNION ALL SELECT {KIND}, -1 FROM old_rows WHERE state = 'open') moved
             GROUP BY {KIND} HAVING sum(one) <> 0;
        END IF;
        RETURN NULL;
    END $$"""  # noqa: S608 - put together from constants
TRIGGERS = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
}


def upgrade() -> None:
    op.create_table(
        "failure_counts",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_failure_counts"),
    )
    op.execute(FUNCTION)
    for event, tables in TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER count_open_on_{event} AFTER {event} ON failures REFERENCING {tables}"
            " FOR EACH STATEMENT EXECUTE FUNCTION count_open_failures()"
        )
    op.execute(
        f"INSERT INTO failure_counts ({KIND}, n) SELECT {KIND}, count(*) FROM failures WHERE state = 'open' GROUP BY {KIND}"  # noqa: S608 - as above
    )
    op.create_table(
        "event_totals",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "event", name="pk_event_totals"),
    )
    op.execute(
        "INSERT INTO event_totals (connector_key, event, n) SELECT connector_key, event, sum(n) FROM event_counts GROUP BY 1, 2"
    )


def downgrade() -> None:
    op.drop_table("event_totals")
    for event in TRIGGERS:
        op.execute(f"DROP TRIGGER count_open_on_{event} ON failures")
    op.execute("DROP FUNCTION count_open_failures()")
    op.drop_table("failure_counts")
