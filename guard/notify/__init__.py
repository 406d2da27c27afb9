"""Notifications on their way out: addresses that may be called, forms, signatures, sending.

Nothing here knows the database; `guard.flow.notify` decides what is sent to whom and when.
"""
