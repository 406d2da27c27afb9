"""SQLAlchemy tables and named queries; rows come back as frozen dataclasses, never as ORM objects.

Every query takes the session first and the time from its caller. `migrate` makes the schema,
`session` the sessions.
"""
