"""Networks.

Built from a manifest, read (data flow, neurons, head, cut points), compared, and extended by a
polarizer.
"""
