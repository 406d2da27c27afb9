"""The demo: upload, scan, verdict, purification and vetted serving, with real data and services."""
