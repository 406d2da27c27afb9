"""Our own rules as tests, each with a test that a violation is seen."""
