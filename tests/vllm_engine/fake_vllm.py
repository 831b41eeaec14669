"""Stands in for the program ``vllm``: it starts, answers, fails and refuses to end as its arguments say."""

import http.server
import json
import os
import signal
import subprocess
import sys
import time


def main() -> None:
    arguments = sys.argv[1:]
    assert arguments[0] == "serve"
    say("INFO 01-02 03:04:05 [loader.py:1] loading " + arguments[1])
    if "--die" in arguments:
        say("Traceback (most recent call last):\nValueError: no such architecture\nlast words")
        sys.exit(3)
    if "--deaf" in arguments:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--worker" in arguments:
        deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", deaf])
    if "--never" in arguments:
        time.sleep(600)
    if "--pids" in arguments:
        path = arguments[arguments.index("--pids") + 1]
        with open(path, "w") as file:  # noqa: PTH123 - no pathlib: it starts at once
            file.write(str(os.getpid()))
    port = int(arguments[arguments.index("--port") + 1])
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Handler(http.server.BaseHTTPRequestHandler):
    """Knows the key that it was started with."""

    def do_GET(self) -> None:
        if self.path != "/health" and self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self._answer(401, {})
        elif self.path == "/crash":
            say("RuntimeError: out of memory")
            os._exit(9)
        else:
            self._answer(200, {"data": [{"id": "m", "root": "m", "max_model_len": 64, "arguments": sys.argv}]})

    def do_POST(self) -> None:
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(200, {"tokens": list(fields["prompt"].encode())})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    main()
