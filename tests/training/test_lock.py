"""One process at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.lock import alone
from tapster.training.loop.state import alone_in

ANOTHER = "import sys\nfrom pathlib import Path\nfrom tapster.training.lock import alone\n" + (
    "with alone(Path(sys.argv[1]), 'busy'):\n    print('locked', flush=True)\n    sys.stdin.read()\n"
)


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(TrainingError, match=f"another process is at work in {tmp_path}: wait"), alone_in(tmp_path):
            pytest.fail("not refused")
        other.communicate("")
    with alone_in(tmp_path), alone_in(tmp_path):  # a pipeline holds it, and its training asks again
        pass
    with alone(file, "busy"):
        pass


def test_no_lock_is_left_in_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"it holds mine\.txt"), alone_in(tmp_path):
        pytest.fail("not refused")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
