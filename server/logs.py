"""Where log lines go: standard error, one line each."""

import logging
import sys


def configure_logging(level: str) -> None:
    """Send everything at ``level`` and above to standard error; libraries only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("tapster").setLevel(level.upper())
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
