"""What lists of scans that run, and of those that failed, are read by.

Nearly all scans are done, and a planner that knows only how many states there are walks all of
them, the newest first, to find the few that are not.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, condition in (
        ("ix_scans_unfinished", "state <> 'done' AND state <> 'failed'"),
        ("ix_scans_failed", "state = 'failed'"),
    ):
        where = sa.text(condition)
        op.create_index(name, "scans", ["created_at"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("ix_scans_failed", "scans")
    op.drop_index("ix_scans_unfinished", "scans")
