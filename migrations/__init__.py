"""Alembic migrations; see guard.store.migrate."""
