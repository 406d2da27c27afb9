"""Commands run as people run them."""
