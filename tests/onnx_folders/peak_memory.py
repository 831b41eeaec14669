"""What a conversion takes in a process of its own. ``ru_maxrss`` would count what the parent had when it forked."""

import subprocess
import sys
from pathlib import Path

import pytest

_CONVERT = """
import sys
from pathlib import Path
from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.onnx.options import OnnxOptions
from tapster.converters.onnx.write import write_onnx
write_onnx(open_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]), OnnxOptions(type=sys.argv[3]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def conversion_megabytes(source: Path, target: Path, type_name: str) -> float:
    """The peak of resident memory, imports included."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("the peak of a process is read from Linux's /proc")
    command = [sys.executable, "-c", _CONVERT, str(source), str(target), type_name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024
