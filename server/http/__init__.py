"""The OpenAI-compatible HTTP door: FastAPI routes over one runtime."""
