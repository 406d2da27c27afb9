"""An index to find out, for every notice, whether its object is known already.

Locks: PostgreSQL blocks writes to the table while it builds the index, about one second per million
rows.
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
