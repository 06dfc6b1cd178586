"""A service of few pictures for the live page: it answers as `cig serve` does, and finds by the words of names.

A picture's words are its colour, its shape and its number: `shapes/red-circle-1.png`. A picture that is sent is known
by its colour. The score is the share of the query's words that a picture has, less the share of unwanted ones.
"""

import io
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image, ImageDraw

from cig.evaluation.html import inline_code, template
from cig.retrieval.filters import Condition

COLOURS = {"red": (215, 60, 50), "green": (50, 150, 90), "blue": (50, 100, 200), "orange": (240, 150, 40)}
PAGE = 20  # of the listing
SHAPES = ("circle", "square", "cross")


def words(name):
    return set(name.rpartition("/")[2].removesuffix(".png").split("-"))


def draw(colour, shape, size=(160, 120)):
    picture = Image.new("RGB", size, "white")
    pen, box = ImageDraw.Draw(picture), (30, 10, 130, 110)
    if shape == "circle":
        pen.ellipse(box, COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, COLOURS[colour])
    else:
        pen.rectangle((65, 10, 95, 110), COLOURS[colour])
        pen.rectangle((30, 45, 130, 75), COLOURS[colour])
    return picture


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def colour_of(picture):
    pixel = picture.convert("RGB").getpixel((picture.width // 2, picture.height // 2))
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], pixel, strict=True)))


@dataclass
class PageService:
    """Its pictures, what it was sent, and what it answers instead (a status, headers, a body), once each."""

    metadata: dict = field(default_factory=dict)
    imagine: bool = False
    queries: list = field(default_factory=list)  # {field: [values]}, of an uploaded picture its colour
    instead: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    pause: float = 0.0
    pending: int = 2  # how often the second phase is asked for before it is there
    url: str = ""

    def rank(self, fields):
        wanted = {word for text in fields.get("text", []) for word in text.split()} | set(fields.get("image", []))
        wanted |= {word for name in fields.get("picture", []) for word in words(name)}
        unwanted = {word for text in fields.get("without", []) for word in text.split()}
        conditions = [Condition.parse(text) for text in fields.get("where", [])]
        passing = [
            name
            for name, row in self.metadata.items()
            if all(condition.holds(row.get(condition.column)) for condition in conditions)
        ]
        scores = {name: (len(words(name) & wanted) - len(words(name) & unwanted)) / len(wanted) for name in passing}
        order = sorted(passing, key=lambda n: (-scores[n], n))
        order = [name for name in order if scores[name] >= float(fields.get("min_score", [-9])[0])]
        if column := fields.get("group_by", [""])[0]:
            order = list({self.metadata[name][column]: name for name in reversed(order)}.values())
            order.sort(key=lambda n: (-scores[n], n))
        return [self.entry(name, score=scores[name]) for name in order[: int(fields["k"][0])]], len(passing)

    def entry(self, name, **more):
        return {"name": name, "metadata": self.metadata[name], "thumbnail": f"/v1/pictures/{name}/thumbnail", **more}

    def listing(self, after=""):
        names = sorted(name for name in self.metadata if name > after)
        rest = names[PAGE - 1] if len(names) > PAGE else None
        return {"pictures": [self.entry(name) for name in names[:PAGE]], "next": rest, "total": len(self.metadata)}

    def answer(self, fields):
        hits, searched = self.rank(fields)
        imagined = {"status": "pending", "picture": None, "hits": None} if "imagine" in fields else None
        return {"id": "7", "hits": hits, "searched": searched, "took_ms": 1.25, "imagined": imagined}

    def second(self):
        self.pending -= 1
        answer = self.answer(self.queries[-1])
        if self.pending < 0:
            picture = f"/v1/pictures/{answer['hits'][0]['name']}/thumbnail"
            answer["imagined"] = {"status": "done", "picture": picture, "hits": answer["hits"][::-1]}
        return answer


@contextmanager
def page_service(**more):
    """A service of 36 pictures, on this machine."""
    names = [f"shapes/{colour}-{shape}-{i}.png" for colour in COLOURS for shape in SHAPES for i in range(3)]
    prices = {name: 10 * i for i, name in enumerate(names)}
    metadata = {n: {"colour": n[7:].split("-")[0], "shape": n.split("-")[1], "price": prices[n]} for n in names}
    service = PageService(metadata, **more)

    class Handler(_Handler):
        owner = service

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield service
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: PageService

    def do_GET(self):
        path, options = unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query)
        if path == "/":
            code = inline_code("search.js", "search.css", connect_src="'self'", img_src="'self' data: blob:")
            page = template("search.html").render(code, title="Shapes", imagine=self.owner.imagine)
            self.send(page.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": code["policy"]})
        elif path == "/v1/pictures":
            self.send_json(self.owner.listing(options.get("after", [""])[0]))
        elif path.endswith("/thumbnail"):
            seen = words(path.removesuffix("/thumbnail"))
            colour, shape = (next(iter(seen & set(kinds)), "red") for kinds in (COLOURS, SHAPES))
            self.send(png(draw(colour, shape)), "image/png")
        else:
            self.send_json(self.owner.second())

    def do_POST(self):
        fields = self.fields()
        time.sleep(self.owner.pause)
        if self.owner.instead:
            status, headers, body = self.owner.instead.pop(0)
            self.send(json.dumps(body).encode(), "application/problem+json", headers, status=status)
            return
        self.owner.queries.append(fields)
        self.send_json(self.owner.answer(fields))

    def do_DELETE(self):
        self.owner.cancelled.append(self.path)
        self.send(b"", "text/plain", status=204)

    def fields(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        found = {}
        for part in BytesParser().parsebytes(head + content).get_payload():
            name, payload = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
            value = colour_of(Image.open(io.BytesIO(payload))) if name == "image" else payload.decode()
            found.setdefault(name, []).append(value)
        return found

    def send_json(self, content):
        self.send(json.dumps(content).encode(), "application/json")

    def send(self, content, kind, headers=(), *, status=200):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing."""
