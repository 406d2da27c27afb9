"""An index for the question that every notice asks first: is this object known already?

Locks: on PostgreSQL the table is not written to while the index is built, a second a million rows.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NAME = "ix_nominations_object"


def upgrade() -> None:
    op.create_index(NAME, "nominations", ["bucket", "key"])


def downgrade() -> None:
    op.drop_index(NAME, "nominations")
