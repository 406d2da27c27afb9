"""SQLAlchemy tables and named queries, which return frozen dataclasses and never ORM objects.

Every query takes the session first and the time from its caller. `migrate` makes the schema,
`session` the sessions.
"""
