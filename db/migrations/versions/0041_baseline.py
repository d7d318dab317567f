"""All tables: the schema from which the first release starts, in `db/migrations/baseline.sql`

Revisions 0001 to 0040 were merged into this one before there was a release.
"""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import op

revision = "0041"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_schema())


def downgrade() -> None:
    for table in reversed(re.findall(r"^CREATE TABLE (\w+)", _schema(), re.MULTILINE)):
        op.drop_table(table, if_exists=True)
    op.execute("DROP FUNCTION count_open_failures()")


def _schema() -> str:
    return files("db.migrations").joinpath("baseline.sql").read_text()
