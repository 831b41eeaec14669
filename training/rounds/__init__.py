"""Self-teaching: sample, check, rank, merge."""
