"""A small server on loopback that speaks as much of OpenAI's chat completions as a client of structured output needs.

Tests script what it answers: each request takes the next answer, and is kept. A `dict` is given as the arguments of the tool that is
offered, or as the JSON text that `response_format` asks for; a `str` as plain text; a `Refused` as an HTTP error.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PROMPT_TOKENS, COMPLETION_TOKENS = 120, 30
"""What each answer says that it cost."""


@dataclass(frozen=True)
class Refused:
    """An answer that is an HTTP error."""

    status: int
    message: str


Answer = dict[str, Any] | str | Refused


@dataclass
class Asked:
    """A request as it came: where to, with which key, and its JSON."""

    path: str
    key: str
    body: dict[str, Any]

    @property
    def said(self) -> str:
        """All that the messages say, in one text."""
        return "\n".join(str(message.get("content")) for message in self.body.get("messages", []))


@dataclass
class OpenAIServer:
    """The server while it runs. `base_url` ends in `/v1`; `asked` are the requests so far; without an answer left it says 500."""

    base_url: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, *answers: Answer) -> None:
        """Say what the next requests get."""
        self.answers.extend(answers)

    def __enter__(self) -> Self:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def respond(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        """The status and the JSON for a request."""
        self.asked.append(asked)
        if not asked.path.endswith("/chat/completions"):
            return 404, _error(f"no such endpoint: {asked.path}")
        given = self.answers.popleft() if self.answers else Refused(500, "the test gave no answer to this request")
        if isinstance(given, Refused):
            return given.status, _error(given.message)
        return 200, completion(asked.body, given, len(self.asked))


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "test", "code": None}}


def completion(body: dict[str, Any], given: dict[str, Any] | str, number: int) -> dict[str, Any]:
    """A whole answer to a request."""
    message, reason = _message(body, given, number)
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body.get("model", "test"),
        "choices": [{"index": 0, "finish_reason": reason, "logprobs": None, "message": message}],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        },
    }


def _message(body: dict[str, Any], given: dict[str, Any] | str, number: int) -> tuple[dict[str, Any], str]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    if isinstance(given, str) or not body.get("tools"):
        return message | {"content": given if isinstance(given, str) else json.dumps(given)}, "stop"
    function = {"name": body["tools"][0]["function"]["name"], "arguments": json.dumps(given)}
    return message | {"tool_calls": [{"id": f"call_{number}", "type": "function", "function": function}]}, "tool_calls"


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    numbers = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer = server.respond(Asked(self.path, key, body))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("x-request-id", f"req_{next(numbers)}")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
