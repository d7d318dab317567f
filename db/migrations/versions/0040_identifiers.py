"""Claims, aliases and reservations in one table; the freshness of the local index in the watermarks"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

KEY = ("connector_key", "entity", "kind", "value")


def upgrade() -> None:
    op.create_table(
        "identifiers",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("pipedrive_id", sa.BigInteger(), nullable=True),
        sa.Column("hull_id", sa.Text(), nullable=True),
        sa.Column("wanted_by", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "CASE role WHEN 'holder' THEN pipedrive_id IS NOT NULL AND hull_id IS NULL"
            " WHEN 'alias' THEN pipedrive_id IS NOT NULL AND hull_id IS NULL AND wanted_by IS NULL"
            " WHEN 'reserved' THEN pipedrive_id IS NULL AND hull_id IS NOT NULL AND wanted_by IS NULL"
            " ELSE false END",
            name=op.f("ck_identifiers_role"),
        ),
    )
    op.execute(
        "INSERT INTO identifiers (connector_key, entity, kind, value, role, pipedrive_id, wanted_by)"
        " SELECT connector_key, entity, claim, value, 'holder', pipedrive_id, wanted_by FROM claims"
    )
    op.execute(
        "INSERT INTO identifiers (connector_key, entity, kind, value, role, pipedrive_id)"
        " SELECT connector_key, entity, claim, value, 'alias', pipedrive_id FROM known_as"
    )
    op.execute(
        "INSERT INTO identifiers (connector_key, entity, kind, value, role, hull_id)"
        " SELECT connector_key, entity, claim, value, 'reserved', hull_id FROM create_intents"
    )
    _create_index("uq_identifiers_holder", *KEY, role="holder")
    _create_index("uq_identifiers_alias", *KEY, "pipedrive_id", role="alias")
    _create_index("uq_identifiers_reserved", *KEY, role="reserved")
    op.create_index("ix_identifiers_record", "identifiers", ["pipedrive_id", "connector_key", "entity"])
    op.create_index(
        "ix_identifiers_reserved_for", "identifiers", ["hull_id"], postgresql_where=sa.text("role = 'reserved'")
    )
    op.add_column("watermarks", sa.Column("listed_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "INSERT INTO watermarks (connector_key, entity, listed_at) SELECT connector_key, entity, listed_at FROM mirrors"
        " ON CONFLICT (connector_key, entity) DO UPDATE SET listed_at = excluded.listed_at"
    )
    for table in ("claims", "known_as", "create_intents", "mirrors"):
        op.drop_table(table)


def _create_index(name: str, *columns: str, role: str) -> None:
    where = sa.text(f"role = '{role}'")
    op.create_index(name, "identifiers", list(columns), unique=True, postgresql_where=where)


def downgrade() -> None:
    _by_claim("claims", sa.Column("pipedrive_id", sa.BigInteger(), nullable=False), is_key=False)
    op.add_column("claims", sa.Column("wanted_by", sa.BigInteger(), nullable=True))
    op.create_index("ix_claims_holder", "claims", ["pipedrive_id", "connector_key", "entity"])
    _by_claim("known_as", sa.Column("pipedrive_id", sa.BigInteger(), nullable=False), is_key=True)
    op.create_index("ix_known_as_record", "known_as", ["pipedrive_id", "connector_key", "entity"])
    _by_claim("create_intents", sa.Column("hull_id", sa.Text(), nullable=False), is_key=False)
    op.create_table(
        "mirrors",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("listed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "entity", name=op.f("pk_mirrors")),
    )
    op.execute(
        "INSERT INTO claims SELECT connector_key, entity, kind, value, pipedrive_id, wanted_by"
        " FROM identifiers WHERE role = 'holder'"
    )
    op.execute(
        "INSERT INTO known_as SELECT connector_key, entity, kind, value, pipedrive_id FROM identifiers WHERE role = 'alias'"
    )
    op.execute(
        "INSERT INTO create_intents SELECT connector_key, entity, kind, value, hull_id FROM identifiers"
        " WHERE role = 'reserved'"
    )
    op.execute(
        "INSERT INTO mirrors SELECT connector_key, entity, listed_at FROM watermarks WHERE listed_at IS NOT NULL"
    )
    op.drop_column("watermarks", "listed_at")
    op.drop_table("identifiers")


def _by_claim(table: str, record: sa.Column[int] | sa.Column[str], *, is_key: bool) -> None:
    key = ["connector_key", "entity", "claim", "value", *([record.name] if is_key else [])]
    op.create_table(
        table,
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        record,
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{table}")),
    )
