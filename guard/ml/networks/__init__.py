"""Build networks from a manifest, read their structure, compare them, and add a polarizer."""
