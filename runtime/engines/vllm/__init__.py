"""An engine that computes elsewhere: a client of running vLLM servers, or of one that it starts itself."""
