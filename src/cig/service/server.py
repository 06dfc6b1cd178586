"""A service from its start to its stop: the socket, the index that opens meanwhile, signals."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from cig.errors import UsageError
from cig.service.settings import SECONDS_TO_STOP, Serving


class GracefulServer(uvicorn.Server):
    """Its normal end is a signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop gracefully at the first signal, and at once at the second; uvicorn's own would raise them again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(serving: Serving) -> socket.socket:
    """Take the port; raise UsageError where it cannot be had."""
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((serving.host, serving.port))
        taken.listen()  # whoever reads the address may ask at once, and waits
    except OSError as error:
        taken.close()
        raise UsageError(
            f"--host {serving.host} --port {serving.port} cannot be had: {error.strerror}; give another --port, or 0"
        ) from error
    return taken


def address_of(taken: socket.socket, secret: str) -> str:
    host, port = taken.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{f'{secret}/' if secret else ''}"


def serve(app: ASGIApp, taken: socket.socket, open_index: Callable[[], None]) -> bool:
    """Answer requests until a signal comes; the index is opened meanwhile, and what that raises is raised.

    Returns whether the index was opened: a signal may come before.
    """
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=SECONDS_TO_STOP
    )
    server, troubles = GracefulServer(config), []

    def opening() -> None:
        try:
            open_index()
        except BaseException as error:
            troubles.append(error)
            server.should_exit = True

    opener = threading.Thread(target=opening, name="open", daemon=True)
    opener.start()
    with taken:
        server.run(sockets=[taken])
    if troubles:
        raise troubles[0]
    return not opener.is_alive()
