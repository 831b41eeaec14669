"""Continuous batching over a table of cache slots, for engines whose model computes one batch of sequences a call."""
