"""The handler that runs inside TorchServe: verify a release, then answer predictions with it."""
