"""Signing, the hash-chained verdict ledger, in-toto statements, and the gate."""
