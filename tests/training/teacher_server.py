"""A small OpenAI-compatible server that misbehaves as it is told to."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = int | str | None
"""What comes instead of an answer: a status, ``drop`` for a connection that ends, or ``half`` for half an answer."""


Scores = Callable[[dict[str, Any]], Any]
RETRY_AFTER_S = 0.5
Choice = Callable[[int], dict[str, Any]]


class TeacherServer(ThreadingHTTPServer):
    """Answers every question with its text in capitals, after ``delay_s``, and keeps count. ``fault(number, question)``
    may let a request fail; 429 comes at once."""

    daemon_threads = True

    def __init__(
        self,
        fault: Callable[[int, str], Fault],
        choice: Choice,
        delay_s: float,
        model: str,
        scores: Scores,
        retry_after: str,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault, self.choice, self.delay_s, self.model, self.scores = fault, choice, delay_s, model, scores
        self.retry_after = retry_after
        self.asked: Counter[str] = Counter()
        self.times: list[tuple[float, Fault]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TeacherServer  # type: ignore[override]  no other server starts it

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": self.server.model, "object": "model", "owned_by": "vllm"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = body["messages"][-1]["content"] if "messages" in body else str(body["prompt"])
        with self.server.lock:
            number = len(self.server.times)
            fault = self.server.fault(number, question)
            self.server.times.append((time.monotonic(), fault))
        if fault != 429:
            time.sleep(self.server.delay_s)
        if fault is None:
            with self.server.lock:
                self.server.asked[question] += 1
        if fault == "drop":
            self.close_connection = True
        elif isinstance(fault, int):
            error = {"message": f"fault {fault}", "code": None, "param": None}
            self._send(fault, {"error": error}, {"retry-after": self.server.retry_after} if fault == 429 else {})
        else:
            scored = {"choices": [{"text": "", "prompt_logprobs": self.server.scores(body)}]}
            answer = scored if "prompt" in body else self._answer(question, body, number)
            self._send(200, answer, is_half=fault == "half")

    def _answer(self, question: str, body: dict[str, Any], number: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": question.upper()}
        token = {"token": "A", "logprob": -0.5, "top_logprobs": [{"logprob": -0.5}, {"logprob": -1.5}]}
        logprobs = {"content": [token, token]} if body.get("logprobs") else None
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
        return {"choices": [choice | self.server.choice(number)], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None, *, is_half: bool = False) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if is_half else data)
        self.close_connection = self.close_connection or is_half

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that the base class has
        """Not logged."""


@contextmanager
def teacher_server(
    fault: Callable[[int, str], Fault] = lambda _number, _question: None,
    *,
    delay_s: float = 0.0,
    model: str = "shouter",
    scores: Scores = lambda _body: None,
    retry_after: str = str(RETRY_AFTER_S),
    choice: Choice | None = None,
    **answer: Any,
) -> Iterator[TeacherServer]:
    """A running server; ``answer`` replaces fields of its choices (``choice``: by the number of the request), and
    ``scores`` is what it says of the tokens of a prompt, as vLLM's ``prompt_logprobs``."""
    server = TeacherServer(fault, choice or (lambda _number: answer), delay_s, model, scores, retry_after)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
