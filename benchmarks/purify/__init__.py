"""What each defense makes of a zoo's models: runs, numbers, tables."""
