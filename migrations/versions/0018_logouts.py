"""Sessions at the identity provider, and which of its log-outs were received."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("browser_sessions", sa.Column("sid", sa.String(64), nullable=True))
    op.create_index("ix_browser_sessions_sid", "browser_sessions", ["sid"])
    op.create_table(
        "logout_statements",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_logout_statements"),
    )


def downgrade() -> None:
    op.drop_table("logout_statements")
    op.drop_index("ix_browser_sessions_sid", "browser_sessions")
    op.drop_column("browser_sessions", "sid")
