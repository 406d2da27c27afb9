"""The script that Alembic runs for each command.

`guard.store.migrate` makes its one connection and commits.
"""

from alembic import context

from guard.store.tables import Base

connection = context.config.attributes["connection"]
# SQLite can roll DDL back because `guard.store.session` stops the driver from issuing BEGIN itself.
context.configure(
    connection=connection, target_metadata=Base.metadata, transactional_ddl=True, compare_type=True
)
with context.begin_transaction():
    context.run_migrations()
