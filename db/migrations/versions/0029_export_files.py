"""Files that Hull exports, as far as they are downloaded

Expand only: the version before neither reads nor writes what is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "export_files",
        sa.Column("errand_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("validator", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("pieces", sa.Integer(), server_default="0", nullable=False),
        sa.Column("is_whole", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("errand_id", name="pk_export_files"),
        sa.ForeignKeyConstraint(["errand_id"], ["errands.id"], name="fk_export_files_errand_id", ondelete="CASCADE"),
    )
    op.create_table(
        "export_pieces",
        sa.Column("errand_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("errand_id", "number", name="pk_export_pieces"),
        sa.ForeignKeyConstraint(
            ["errand_id"],
            ["export_files.errand_id"],
            name="fk_export_pieces_errand_id",
            ondelete="CASCADE",
        ),
    )
    op.execute("ALTER TABLE export_pieces ALTER content SET STORAGE EXTERNAL")  # it is compressed already


def downgrade() -> None:
    op.drop_table("export_pieces")
    op.drop_table("export_files")
