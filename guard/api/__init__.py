"""The HTTP side: takes events in, tells about scans and verdicts.

Loads no torch, opens no artifact.
"""
