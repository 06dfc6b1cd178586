"""Ask a language model behind an OpenAI-compatible address, such as llama.cpp's, vLLM's or Ollama's server.

The key comes from the environment alone and goes nowhere else; answers are bounded and treated as hostile.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cig.errors import InputError, UsageError, plain, reason

KEY = "CIG_LLM_KEY"  # of the environment
MOST_BYTES = 2**20  # of an answer
TRIES = 3
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ChatService:
    """An address such as http://127.0.0.1:8080/v1, and the name of its model.

    Raises:
        UsageError: an address of another form, or a key that would travel unencrypted.
    """

    address: str
    model: str
    seconds: float = 300.0  # for an answer
    pause: float = 2.0  # seconds before a second try, doubled for a third

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UsageError(f"--llm {plain(self.address, 100)}: an address such as http://127.0.0.1:8080/v1")
        if os.environ.get(KEY) and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise UsageError(f"{KEY} is set and --llm {parts.hostname} is not encrypted; use https, or unset it")

    def answer(self, prompt: str, most: int) -> str:
        """Return the answer to a prompt at temperature 0, at most so many tokens; raises InputError."""
        message = {"role": "user", "content": prompt}
        body = {"model": self.model, "messages": [message], "temperature": 0, "max_tokens": most, "seed": 0}
        for attempt in range(TRIES):
            status, data = self._post(body)
            if status not in (429, 500, 502, 503, 504):
                break
            if attempt + 1 < TRIES:
                time.sleep(self.pause * 2**attempt)
        if status != 200:
            raise InputError(f"{self.address} answered {status}: {plain(data.decode('utf-8', 'replace'), 200)}")
        return self._text(data)

    def _post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        try:
            import httpx
        except ImportError as error:
            raise UsageError("this asks a service, and needs httpx: pip install 'cig[data]'") from error
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = b""
        url = f"{self.address.rstrip('/')}/chat/completions"
        deadline = time.monotonic() + self.seconds
        try:
            local = urlsplit(self.address).hostname in LOOPBACK  # no proxy is asked for this machine
            with httpx.stream(
                "POST", url, json=body, headers=headers, timeout=self.seconds, trust_env=not local
            ) as response:
                for chunk in response.iter_bytes(2**14):
                    data += chunk
                    if len(data) > MOST_BYTES:
                        raise InputError(f"{self.address} answered more than {MOST_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise InputError(f"{self.address} took more than {self.seconds:g} s for an answer")
                return response.status_code, data
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InputError(f"{self.address} cannot be asked: {reason(error)}; is its server running?") from error

    def _text(self, data: bytes) -> str:
        try:
            text = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise InputError(f"{self.address} answered in another form than OpenAI's chat completions") from error
        if not isinstance(text, str):
            raise InputError(f"{self.address} answered without text")
        return text
