"""Run a model: engines make tokens, the runtime makes text."""
