"""First tables

Expand first, backfill in a later step, contract last: the version before this one is still at work while it runs.
Hold locks for moments only (lock_timeout is 5 s); no extension may be needed.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("claimed_revision", sa.Integer(), nullable=True),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("rank", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sa.UniqueConstraint(
            "connector_key",
            "direction",
            "entity",
            "record_id",
            name=op.f("uq_changes_connector_key_direction_entity_record_id"),
        ),
    )
    op.create_index(
        "ix_changes_batch", "changes", ["batch_id"], unique=False, postgresql_where=sa.text("batch_id IS NOT NULL")
    )
    op.create_index("ix_changes_due", "changes", ["due_at"], unique=False, postgresql_where=sa.text("batch_id IS NULL"))
    op.create_table(
        "claims",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("pipedrive_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "entity", "claim", "value", name=op.f("pk_claims")),
    )
    op.create_index("ix_claims_holder", "claims", ["pipedrive_id", "connector_key", "entity"], unique=False)
    op.create_table(
        "connectors",
        sa.Column("key", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hull_organization", sa.Text(), nullable=False),
        sa.Column("pipedrive_company", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("pause_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_connectors")),
        sa.UniqueConstraint("id", name=op.f("uq_connectors_id")),
        sa.UniqueConstraint("name", name=op.f("uq_connectors_name")),
    )
    op.create_table(
        "failures",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Text(), nullable=True),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("exchange", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("closed_why", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failures")),
    )
    op.create_index("ix_failures_latest", "failures", ["connector_key", "state", "id"], unique=False)
    op.create_index(
        "uq_failures_open",
        "failures",
        ["connector_key", "subject"],
        unique=True,
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "id_mappings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("pipedrive_id", sa.BigInteger(), nullable=True),
        sa.Column("hull_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("delivered", sa.LargeBinary(), nullable=True),
        sa.Column("matched_by", sa.Text(), nullable=False),
        sa.Column("merged_into", sa.BigInteger(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolve_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_id_mappings")),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index(
        "ix_id_mappings_shells",
        "id_mappings",
        ["connector_key", "first_seen_at"],
        unique=False,
        postgresql_where=sa.text("state = 'shell'"),
    )
    op.create_index(
        "ix_id_mappings_unresolved",
        "id_mappings",
        ["connector_key", "resolve_at"],
        unique=False,
        postgresql_where=sa.text("hull_id IS NULL"),
    )
    op.create_index(
        "uq_id_mappings_hull",
        "id_mappings",
        ["connector_key", "entity", "hull_id"],
        unique=True,
        postgresql_where=sa.text("hull_id IS NOT NULL"),
    )
    op.create_index(
        "uq_id_mappings_pipedrive",
        "id_mappings",
        ["connector_key", "entity", "pipedrive_id"],
        unique=True,
        postgresql_where=sa.text("pipedrive_id IS NOT NULL"),
    )
    op.create_table(
        "snapshot_shapes",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "entity", name=op.f("pk_snapshot_shapes")),
    )
    op.create_table(
        "snapshots",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "entity", "side", "record_id", name=op.f("pk_snapshots")),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_table(
        "sync_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("connector_key", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("pipedrive_id", sa.BigInteger(), nullable=True),
        sa.Column("hull_id", sa.Text(), nullable=True),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("settings_version", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("before", sa.LargeBinary(), nullable=True),
        sa.Column("after", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", "at", name=op.f("pk_sync_events")),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index("ix_sync_events_at", "sync_events", ["at"], unique=False, postgresql_using="brin")
    op.create_index("ix_sync_events_record", "sync_events", ["connector_key", "entity", "pipedrive_id"], unique=False)
    op.create_table(
        "credentials",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_credentials_connector_key")),
        sa.PrimaryKeyConstraint("connector_key", "name", name=op.f("pk_credentials")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), server_default="new", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_deliveries_connector_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("connector_key", "source", "key", name=op.f("uq_deliveries_connector_key_source_key")),
    )
    op.create_index(
        "ix_deliveries_unfolded", "deliveries", ["id"], unique=False, postgresql_where=sa.text("state = 'new'")
    )
    op.create_table(
        "field_definitions",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("rows", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_field_definitions_connector_key")),
        sa.PrimaryKeyConstraint("connector_key", "entity", name=op.f("pk_field_definitions")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("phase", sa.Text(), server_default="walk", nullable=False),
        sa.Column("changed_only", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("settings_version", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pages", sa.Integer(), server_default="0", nullable=False),
        sa.Column("read", sa.Integer(), server_default="0", nullable=False),
        sa.Column("new", sa.Integer(), server_default="0", nullable=False),
        sa.Column("changed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("same", sa.Integer(), server_default="0", nullable=False),
        sa.Column("skipped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("shells", sa.Integer(), server_default="0", nullable=False),
        sa.Column("links", sa.Integer(), server_default="0", nullable=False),
        sa.Column("messages", sa.Integer(), server_default="0", nullable=False),
        sa.Column("requests", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tokens", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_runs_connector_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(
        "uq_runs_one_at_a_time",
        "runs",
        ["connector_key", "entity", "kind"],
        unique=True,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "schedules",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_schedules_connector_key")),
        sa.PrimaryKeyConstraint("connector_key", "kind", name=op.f("pk_schedules")),
    )
    op.create_table(
        "settings_versions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_settings_versions_connector_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settings_versions")),
        sa.UniqueConstraint("connector_key", "version", name=op.f("uq_settings_versions_connector_key_version")),
    )
    op.create_table(
        "slices",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("walk", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("frontier", sa.BigInteger(), nullable=True),
        sa.Column("pages", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_slices_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slices")),
    )
    op.create_index(op.f("ix_slices_run_id"), "slices", ["run_id"], unique=False)
    op.create_table(
        "batches",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("slice_id", sa.BigInteger(), nullable=True),
        sa.Column("read_back_id", sa.BigInteger(), nullable=True),
        sa.Column("stage", sa.Text(), server_default="extract", nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("extracted", sa.LargeBinary(), nullable=True),
        sa.Column("transformed", sa.LargeBinary(), nullable=True),
        sa.Column("records", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_batches_connector_key")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_batches_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["slice_id"], ["slices.id"], name=op.f("fk_batches_slice_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index(
        "ix_batches_moving",
        "batches",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('ready', 'running')"),
    )
    op.create_index("ix_batches_run", "batches", ["run_id", "state"], unique=False)
    # What is staged is compressed by the pipeline: PostgreSQL need not try again.
    for table, column in (("batches", "extracted"), ("batches", "transformed"), ("snapshots", "payload")):
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL")
    # No event may be refused for want of a day's partition.
    op.execute("CREATE TABLE sync_events_other PARTITION OF sync_events DEFAULT")


def downgrade() -> None:
    op.drop_index("ix_batches_run", table_name="batches")
    op.drop_index("ix_batches_moving", table_name="batches", postgresql_where=sa.text("state IN ('ready', 'running')"))
    op.drop_table("batches")
    op.drop_index(op.f("ix_slices_run_id"), table_name="slices")
    op.drop_table("slices")
    op.drop_table("settings_versions")
    op.drop_table("schedules")
    op.drop_index("uq_runs_one_at_a_time", table_name="runs", postgresql_where=sa.text("state = 'running'"))
    op.drop_table("runs")
    op.drop_table("field_definitions")
    op.drop_index("ix_deliveries_unfolded", table_name="deliveries", postgresql_where=sa.text("state = 'new'"))
    op.drop_table("deliveries")
    op.drop_table("credentials")
    op.drop_index("ix_sync_events_record", table_name="sync_events")
    op.drop_index("ix_sync_events_at", table_name="sync_events", postgresql_using="brin")
    op.drop_table("sync_events")
    op.drop_table("snapshots")
    op.drop_table("snapshot_shapes")
    op.drop_index(
        "uq_id_mappings_pipedrive", table_name="id_mappings", postgresql_where=sa.text("pipedrive_id IS NOT NULL")
    )
    op.drop_index("uq_id_mappings_hull", table_name="id_mappings", postgresql_where=sa.text("hull_id IS NOT NULL"))
    op.drop_index("ix_id_mappings_unresolved", table_name="id_mappings", postgresql_where=sa.text("hull_id IS NULL"))
    op.drop_index("ix_id_mappings_shells", table_name="id_mappings", postgresql_where=sa.text("state = 'shell'"))
    op.drop_table("id_mappings")
    op.drop_index("uq_failures_open", table_name="failures", postgresql_where=sa.text("state = 'open'"))
    op.drop_index("ix_failures_latest", table_name="failures")
    op.drop_table("failures")
    op.drop_table("connectors")
    op.drop_index("ix_claims_holder", table_name="claims")
    op.drop_table("claims")
    op.drop_index("ix_changes_due", table_name="changes", postgresql_where=sa.text("batch_id IS NULL"))
    op.drop_index("ix_changes_batch", table_name="changes", postgresql_where=sa.text("batch_id IS NOT NULL"))
    op.drop_table("changes")
