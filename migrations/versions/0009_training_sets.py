"""Training sets by name: where they lie, and what was read there."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    plain = sa.JSON(none_as_null=True)
    op.create_table(
        "training_sets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("class_names", plain, nullable=False),
        sa.Column("facts", plain, nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_training_sets"),
    )


def downgrade() -> None:
    op.drop_table("training_sets")
