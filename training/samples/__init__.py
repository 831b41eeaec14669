"""Small data of our own, for runs without a network."""
