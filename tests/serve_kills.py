"""Kills `cig serve` with SIGKILL during puts and deletes, and compares what is there with what was acknowledged.

    python tests/serve_kills.py --kills 40 --writes 2000 --seed 0

Several clients write at once, each to names of its own: new pictures, other pictures of the same names, deletions. At
random moments the service is killed and started again. After each start every acknowledged write is there; of the one
write of each client that was under way, all of it is there or none. Half of the trials serve an index, half a folder.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from hashlib import sha256
from pathlib import Path

from PIL import Image

from cig.cli.main import main as run_line

METHOD, CLIENTS, NAMES = "sum/icons", 3, 12
TOKENS = {"write": "w" * 24, "read": "r" * 24}
Row = tuple[str, int]  # a picture's digest, and its metadata's number
ABSENT = ("", -1)


def picture_of(rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (rng.randrange(8, 40), 8), tuple(rng.randrange(256) for _ in range(3))).save(buffer, "PNG")
    return buffer.getvalue()


def fork(line: list[str], log: Path) -> int:
    """Return the pid of a process that runs a command line. A fork has imported what it needs, and starts quickly."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        run_line(line)
    except SystemExit as done:
        code = int(done.code or 0)
    finally:
        os._exit(code)


class Service:
    """One process of `cig serve`."""

    def __init__(self, home: Path, location: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        line = ["serve", str(location), "--port", str(self.port), "--device", "cpu"]
        line += [f"--{name}-token-file={home / name}" for name in TOKENS]
        line += [f"--feature-cache={home / 'cache'}", *(["--method", METHOD] if location.name == "folder" else [])]
        self.process = fork(line, home / "log")
        while not os.waitpid(self.process, os.WNOHANG)[0]:
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit((home / "log").read_text()[-5000:])

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Authorization": f"Bearer {TOKENS['write']}"} | ({"Content-Type": kind} if kind else {})
            line.request(method, path, body or None, headers)
            answer = line.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            line.close()

    def put(self, name: str, data: bytes, number: int) -> int:
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + data
        body += b'\r\n--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
        body += json.dumps({"number": number}).encode() + b"\r\n--b--\r\n"
        return self.ask("PUT", f"/v1/pictures/{name}", body, "multipart/form-data; boundary=b")[0]

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


def read(service: Service, name: str) -> Row:
    """Return what the service has of a name, by its file and by the list; raise where the two differ."""
    status, content = service.ask("GET", f"/v1/pictures/{name}")
    _, listed = service.ask("GET", f"/v1/pictures?limit=1&after={name[:-1]}")
    facts = [one for one in json.loads(listed)["pictures"] if one["name"] == name]
    if status not in (200, 404) or (status == 200) != bool(facts):
        raise SystemExit(f"{name}: {status}, and the list has {facts}")
    return (sha256(content).hexdigest(), facts[0]["metadata"].get("number", 0)) if facts else ABSENT


class Writer(threading.Thread):
    """A client with names of its own; it knows what was acknowledged, and the one write that was not."""

    def __init__(self, service: Service, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.rng, self.writes = random.Random(seed * 1000 + number), 0
        self.names = [f"pictures/{number}-{i}.png" for i in range(NAMES)]
        self.acknowledged = {name: read(service, name) for name in self.names}
        self.open: tuple[str, Row] | None = None
        self.wrong: list[str] = []

    def work(self, service: Service, stop: threading.Event) -> None:
        """Write until the service dies or the event is set."""
        while not stop.is_set():
            name = self.rng.choice(self.names)
            before = self.acknowledged[name]
            data, number = picture_of(self.rng), self.rng.randrange(10**6)
            delete = before != ABSENT and self.rng.random() < 0.4
            after = ABSENT if delete else (sha256(data).hexdigest(), number)
            self.open = name, after
            try:
                status = service.ask("DELETE", f"/v1/pictures/{name}")[0] if delete else service.put(name, data, number)
            except OSError:
                return
            if status != (204 if delete else 201 if before == ABSENT else 200):
                self.wrong.append(f"{'DELETE' if delete else 'PUT'} {name}: {status}")
                return
            self.acknowledged[name], self.open = after, None
            self.writes += 1

    def check(self, service: Service) -> None:
        """Compare the service with what was acknowledged; a write that was under way may be there or not."""
        for name in self.names:
            row = read(service, name)
            allowed = [self.acknowledged[name]]
            if self.open and self.open[0] == name:
                allowed.append(self.open[1])
            if row not in allowed:
                self.wrong.append(f"{name}: {row}, not among {allowed}")
            self.acknowledged[name] = row
        self.open = None


def round_of(service: Service, writers: list[Writer], writes: int, rng: random.Random) -> None:
    """Let the writers write about so often, and kill the service at a random moment then."""
    stop, until = threading.Event(), sum(writer.writes for writer in writers) + writes
    threads = [threading.Thread(target=writer.work, args=(service, stop)) for writer in writers]
    for thread in threads:
        thread.start()
    while sum(writer.writes for writer in writers) < until and any(thread.is_alive() for thread in threads):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05))
    service.kill()
    stop.set()
    for thread in threads:
        thread.join()


def trial(home: Path, location: Path, kills: int, writes: int, seed: int) -> tuple[int, list[str]]:
    """Kill a service so many times within so many writes; return how many writes there were, and what was wrong."""
    rng, service = random.Random(seed), Service(home, location)
    writers = [Writer(service, number, seed) for number in range(CLIENTS)]
    try:
        for _ in range(kills):
            round_of(service, writers, rng.randint(1, max(2 * writes // kills - 1, 1)), rng)
            service = Service(home, location)
            for writer in writers:
                writer.check(service)
    finally:
        service.kill()
    return sum(writer.writes for writer in writers), [line for writer in writers for line in writer.wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--writes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="serve-kills-"))
    try:
        folder = home / "folder"
        (folder / "pictures").mkdir(parents=True)
        rng = random.Random(given.seed)
        for number in range(CLIENTS):
            (folder / f"pictures/{number}-0.png").write_bytes(picture_of(rng))
        for name, token in TOKENS.items():
            (home / name).write_text(token)
        build = ["index", "build", f"{folder}", "--out", f"{home / 'index'}", "--method", METHOD, "--device", "cpu"]
        os.waitpid(fork([*build, "--feature-cache", f"{home / 'cache'}"], home / "log"), 0)
        wrong, writes = [], 0
        for location in (home / "index", folder):
            done, lines = trial(home, location, given.kills // 2, given.writes // 2, given.seed)
            print(f"{location.name}: {given.kills // 2} kills in {done} acknowledged writes, {len(lines)} wrong")
            writes, wrong = writes + done, wrong + lines
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("\n".join([*wrong, f"{given.kills} kills in {writes} writes: {len(wrong)} wrong"]))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
