"""Runs a program until it ends or the one who wants it does: ``python guard.py GRACE_S PROGRAM ARGUMENT …``.

It stands between tapster and vLLM. Its standard input is a pipe of which only tapster has the other end, so the pipe
closes when tapster lets go of it and also when tapster is killed; then every process of the program is ended. A
parent-death signal would not do: Linux sends it when the starting *thread* ends, and elsewhere there is none.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time


def main() -> int:
    """The exit status of the program. This process leads the group that the program and its children are in."""
    grace_s, command = float(sys.argv[1]), sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # they are for the group, and the pipe says what to do
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror or error}", flush=True)  # noqa: T201 - the log is stdout
        return 127
    threading.Thread(target=_watch_pipe, args=(program, grace_s), daemon=True).start()
    status = program.wait()
    _end_rest(grace_s)
    return status if status >= 0 else 128 - status


def _watch_pipe(program: "subprocess.Popen[bytes]", grace_s: float) -> None:
    while os.read(0, 4096):
        pass
    program.terminate()
    time.sleep(grace_s)
    os.killpg(0, signal.SIGKILL)


def _end_rest(grace_s: float) -> None:
    """Workers that outlive the program hold its memory and devices."""
    with contextlib.suppress(OSError):
        os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + min(grace_s, 5.0)
    while _others() and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in _others():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _others() -> list[int]:
    """What is in the group besides this process. Only Linux tells; elsewhere SIGTERM has to do."""
    own, group = os.getpid(), os.getpgrp()
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != own]  # noqa: PTH208 - no pathlib: it starts at once
    except OSError:
        return []
    return [int(name) for name in names if _group_of(name) == group]


def _group_of(name: str) -> int | None:
    try:
        with open(f"/proc/{name}/stat", encoding="latin-1") as file:  # noqa: PTH123 - no pathlib: it starts at once
            state, _, group = file.read().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(group)


if __name__ == "__main__":
    sys.exit(main())
