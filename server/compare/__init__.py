"""Which artifact on which engine to run on this machine: each is served, timed and compared with its source."""
