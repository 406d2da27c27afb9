"""The demo.

Upload, scan, verdict, purification and vetted serving, on real data and real components.
"""
