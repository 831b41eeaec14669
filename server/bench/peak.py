"""``python -m tapster.server.bench.peak FILE COMMAND…``: run a command and write its peak resident bytes to FILE.

The peak is the process's own from its start: what ``getrusage`` says of a child contains its parent's.
"""

import resource
import sys
from pathlib import Path

from ..cli import main


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    code = main(sys.argv[2:])
    Path(sys.argv[1]).write_text(str(peak_bytes()))
    sys.exit(code)
