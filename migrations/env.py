"""What Alembic runs for each command.

One connection, made and committed by `guard.store.migrate`.
"""

from alembic import context

from guard.store.tables import Base

connection = context.config.attributes["connection"]
# SQLite can roll DDL back once the driver leaves BEGIN to us, which `guard.store.session` sees to.
context.configure(
    connection=connection, target_metadata=Base.metadata, transactional_ddl=True, compare_type=True
)
with context.begin_transaction():
    context.run_migrations()
