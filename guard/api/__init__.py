"""The HTTP API: receives events and answers questions about scans and verdicts.

It imports no torch and opens no artifact.
"""
