"""Rename errands to jobs, with the names of their kinds and what refers to them"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

from pipeline.errors import ConfigurationError
from pipeline.settings import settings
from pipeline.vault import Vault

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

COLUMNS = {
    "key": "dedupe_key",
    "sealed": "secret",
    "asked": "requested",
    "token": "lease_token",
    "woken_at": "dispatched_at",
    "mark": "checkpoint",
}
KINDS = {"settings": "settings_sync", "adoption": "connector_creation", "log": "log_export"}


def upgrade() -> None:
    for old, new in COLUMNS.items():
        op.alter_column("errands", old, new_column_name=new)
    op.rename_table("errands", "jobs")
    for table in ("export_files", "export_pieces"):
        op.alter_column(table, "errand_id", new_column_name="job_id")
    _rename_constraints("errand", "job")
    _encrypt_again("errand", "job", KINDS)
    _rename_kinds("errand", "job", KINDS)


def downgrade() -> None:
    kinds = {new: old for old, new in KINDS.items()}
    _encrypt_again("job", "errand", kinds)
    _rename_kinds("job", "errand", kinds)
    for table in ("export_files", "export_pieces"):
        op.alter_column(table, "job_id", new_column_name="errand_id")
    op.rename_table("jobs", "errands")
    for old, new in COLUMNS.items():
        op.alter_column("errands", new, new_column_name=old)
    _rename_constraints("job", "errand")


def _rename_constraints(old: str, new: str) -> None:
    """Rename the constraints, indexes and sequences of the tables that carry the old name."""
    tables = ("errands", "jobs", "export_files", "export_pieces")
    scope = {"tables": list(tables), "old": f"%{old}%"}
    found = op.get_bind().execute(
        sa.text("""
            SELECT format('ALTER TABLE %I RENAME CONSTRAINT %I TO ', t.relname, c.conname) AS change, c.conname AS name
              FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
             WHERE t.relname = ANY(:tables) AND t.relnamespace = current_schema()::regnamespace AND c.conname LIKE :old
            UNION ALL
            SELECT format('ALTER INDEX %I RENAME TO ', i.relname), i.relname FROM pg_index x
              JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
             WHERE t.relname = ANY(:tables) AND t.relnamespace = current_schema()::regnamespace AND i.relname LIKE :old
               AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.oid)
            UNION ALL
            SELECT format('ALTER SEQUENCE %I RENAME TO ', s.relname), s.relname FROM pg_class s
             WHERE s.relkind = 'S' AND s.relnamespace = current_schema()::regnamespace
               AND s.relname IN ('errands_id_seq', 'jobs_id_seq')"""),
        scope,
    )
    for row in found.all():
        op.execute(f'{row.change}"{row.name.replace(old, new)}"')


def _rename_kinds(old: str, new: str, kinds: Mapping[str, str]) -> None:
    """Rename the kinds of jobs, and the subjects and stages of their failures."""
    for before, after in kinds.items():
        names = {"before": before, "after": after, "stage": f"control.{old}"}
        op.get_bind().execute(sa.text("UPDATE jobs SET kind = :after WHERE kind = :before"), names)
        op.get_bind().execute(
            sa.text("""
                UPDATE failures SET subject = 'control:' || :after || substr(subject, length('control:' || :before) + 1)
                 WHERE stage = :stage
                   AND (subject = 'control:' || :before OR starts_with(subject, 'control:' || :before || ':'))"""),
            names,
        )
    stages = {"old": f"control.{old}", "new": f"control.{new}"}
    op.get_bind().execute(sa.text("UPDATE failures SET stage = :new WHERE stage = :old"), stages)


def _encrypt_again(old: str, new: str, kinds: Mapping[str, str]) -> None:
    """Bind the secrets to the new names, see `pipeline.vault`; one that no key opens stays as it is, and its job fails."""
    rows = op.get_bind().execute(
        sa.text(
            "SELECT id, coalesce(connector_key, 0) AS owner, kind, dedupe_key, secret FROM jobs WHERE secret IS NOT NULL"
        )
    )
    for row in rows.all():
        vault = Vault(settings().secret_keys)
        try:
            secret = vault.open(row.owner, f"{old}:{row.kind}:{row.dedupe_key}", bytes(row.secret))
        except ConfigurationError:
            continue
        sealed = vault.seal(row.owner, f"{new}:{kinds.get(row.kind, row.kind)}:{row.dedupe_key}", secret)
        op.get_bind().execute(
            sa.text("UPDATE jobs SET secret = :sealed WHERE id = :id"), {"sealed": sealed, "id": row.id}
        )
