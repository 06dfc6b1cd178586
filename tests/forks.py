"""Runs Python programs as forks of one process that has their imports, so that each need not load torch anew.

    python tests/forks.py SOCKET "what to do first"

serves until its standard input ends; `client` writes programs that ask it. What a fork imported, the process imports,
too, before the next one asks. It never computes: a fork would inherit half of torch's threads.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({place!r})
    socket.send_fds(line, [b"?"], [0, 1, 2])
    own = {{"words": [{name!r}, *sys.argv[1:]], "home": os.getcwd(), "environ": dict(os.environ)}}
    line.sendall(json.dumps(own).encode())
    line.shutdown(socket.SHUT_WR)
    sys.exit(int(line.recv(9) or b"1"))
"""


def client(folder: Path, name: str, place: Path) -> None:
    """Writes folder/name: `cig`, or `python`, which runs a script. Its forks are served at `place`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(CLIENT.format(python=sys.executable, place=str(place), name=name))
    path.chmod(0o755)


@contextlib.contextmanager
def serving(place: Path, first: str) -> Iterator[None]:
    """Serves at `place`, once `first` was done there."""
    command = [sys.executable, __file__, str(place), first]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"ready\n", f"no server: {command}"
        yield


def serve(place: str, first: str) -> None:
    exec(first, {})
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen()
        print("ready", flush=True)
        children: set[int] = set()
        while True:
            children -= {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]}
            if sys.stdin in select.select([door, sys.stdin], [], [])[0]:
                for pid in children:  # of a client that is gone
                    os.kill(pid, signal.SIGKILL)
                return
            line, _ = door.accept()
            with line:
                kind, streams, _, _ = socket.recv_fds(line, 1, 3)
                told = json.loads(line.makefile("rb").read())
                if kind == b"?":
                    pid = os.fork()
                    if not pid:
                        door.close()
                        run(line, streams, place, **told)
                    children.add(pid)
                else:
                    load(told)
            for stream in streams:
                os.close(stream)


def load(names: list[str]) -> None:
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # what only the fork could import: a recipe's own modules
                importlib.import_module(name)


def run(line: socket.socket, streams: list[int], place: str, words: list[str], home: str, environ: dict) -> None:
    """In the fork: runs the program, tells the server what it imported and the client its exit code."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    # Fresh ones: those of the server remember whether its own streams could seek.
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(home)
    known, code = {*sys.modules}, 1
    try:
        program(words)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as back:
            back.connect(place)
            back.sendall(b"!" + json.dumps([name for name in sys.modules if name not in known]).encode())
        with contextlib.suppress(OSError):
            line.sendall(str(code).encode())
        os._exit(code)


def program(words: list[str]) -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    if words[0] == "cig":
        from cig.cli.main import main

        sys.argv = words
        main()
    else:
        sys.argv = words[1:]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve(*sys.argv[1:])
