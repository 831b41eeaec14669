"""What a server and its children took of memory at their peak."""

from pathlib import Path

COUNTED = (
    "resident memory of the server's processes, each at its own peak since its start (VmHWM; elsewhere than on Linux "
    "what they hold at the end), pages of mapped model files inside"
)


def peak_tree_bytes(pid: int) -> int:
    """The sum over a process and all that descend from it. Processes that have ended are not in it."""
    import psutil

    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += _peak_bytes(process.pid) or process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _peak_bytes(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith("VmHWM:")), None)
    return int(found.split()[1]) * 1024 if found else None
