"""Vet and repair one model: files in, plain data out.

`guard scan` and a worker's job both run this; no store, no network.
"""
