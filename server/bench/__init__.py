"""A load generator for OpenAI-compatible servers, and the raw replay that says what the machine could do."""
