"""What a service is started with, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cig.errors import NotFoundError, UsageError, at_least_1

MEGABYTE = 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_PICTURES = 8  # of a query
MOST_HELD = 512 * MEGABYTE  # bytes of requests that are read or answered at once
SECONDS_TO_ARRIVE = 30.0  # for a request's content
SECONDS_TO_ANSWER = 60.0  # for a query, waiting included
SECONDS_TO_STOP = 20  # for requests that are being answered when the service is stopped


@dataclass(frozen=True)
class Serving:
    """Where a service listens, who may use it, and how much it takes."""

    host: str = "127.0.0.1"
    "The address to listen on. Another one than this machine's own demands both token files."
    port: int = 8000
    "0 takes any that is free."
    write_token_file: Path | None = None
    "A file with the token of requests that may change the index."
    read_token_file: Path | None = None
    "A file with the token of requests that may search it."
    max_upload: int = 32 * MEGABYTE
    "Bytes of one uploaded picture."
    queue: int = 128
    "Queries that wait; further ones are answered 429."
    imagine: bool = False
    "Offer pseudo-targets of queries with a picture and a text; it needs SDXL and two phis, or --generator sdxl/icons."
    log_queries: bool = False
    "Write texts and names of pictures into the log."

    def __post_init__(self) -> None:
        at_least_1("--max-upload", self.max_upload)
        at_least_1("--queue", self.queue)
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}: 0 to 65535")
        if not self.is_local and not (self.write_token_file and self.read_token_file):
            raise UsageError(
                f"--host {self.host} is open to other machines: give --write-token-file and --read-token-file, too"
            )

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK


def read_token(path: Path) -> str:
    """Read a token's file; raise UsageError unless it holds one word."""
    try:
        words = path.read_text(encoding="ascii").split()
    except OSError as error:
        raise NotFoundError(f"the token file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the token file {path} has other letters than ASCII") from error
    if len(words) != 1:
        raise UsageError(f"the token file {path} should hold one word, such as that of: openssl rand -hex 24")
    return words[0]
