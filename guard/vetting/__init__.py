"""Vet and repair one model: from files to plain data, without a store or a network.

`guard scan` and a worker's job both run this.
"""
