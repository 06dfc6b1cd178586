"""Hostile uploads: (kind, content, whether it may be a picture all the same), the same every time."""

import io
import random
import struct
import zlib

from PIL import Image

REFUSED, TOO_LARGE, EITHER = {415}, {413}, {200, 201, 413, 415}
SCRIPT = b"<script>alert(1)</script>"


def encoded(picture, form="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def stated_png(width, height, rows=b"", colour=2):
    """A PNG that states a size, whatever it holds."""
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def stated_gif(width, height):
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b";"


def stated_bmp(width, height):
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def uploads(times=1):
    """Yield (kind, content, statuses that are right); times=9 makes about 300."""
    rng = random.Random(0)
    picture = Image.effect_noise((40, 30), 80).convert("RGB")
    whole = {form: encoded(picture, form) for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")}
    yield from _large()
    yield from _of_other_kinds(whole)
    for _ in range(times):
        for form, data in whole.items():
            yield f"truncated {form}", data[: rng.randrange(8, len(data) // 2)], EITHER
            yield f"{form} with noise in it", _noisy(data, rng), EITHER
            yield f"{form} with another's head", whole["PNG" if form != "PNG" else "GIF"][:12] + data[12:], EITHER
        for size in (1, 16, 1000, 100_000):
            yield f"{size} random bytes", rng.randbytes(size), REFUSED
        for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
            yield f"random bytes as {form}", whole[form][:16] + rng.randbytes(500), EITHER
        for side in (20_001, 40_000, 2**31 - 1):
            number = rng.randrange(side, 2**31)
            yield f"a PNG of {side} x {number}", stated_png(side, number), TOO_LARGE


def _large():
    yield "40,000 x 40,000", stated_png(40_000, 40_000), TOO_LARGE
    yield "40,000 x 40,000, grey, with rows", stated_png(40_000, 40_000, bytes(40_001 * 100), 0), TOO_LARGE
    yield "65,535 x 65,535 GIF", stated_gif(65_535, 65_535), TOO_LARGE | REFUSED
    yield "50,000 x 50,000 BMP", stated_bmp(50_000, 50_000), TOO_LARGE
    yield "a bomb: rows that go on", stated_png(10, 10, bytes(50_000_000)), EITHER
    yield "a bomb in text", _with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))), EITHER
    yield "a bomb in a profile", _with_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))), EITHER
    yield "0 x 0", stated_png(0, 0), TOO_LARGE | REFUSED
    yield "1 x 2,000,000,000", stated_png(1, 2_000_000_000), TOO_LARGE


def _with_chunk(kind, content):
    data = encoded(Image.new("RGB", (8, 8)))
    return data[:33] + chunk(kind, content) + data[33:]


def _of_other_kinds(whole):
    yield "empty", b"", {415, 422}
    yield "zeros", bytes(10_000), REFUSED
    yield "text", b"no picture at all", REFUSED
    yield "HTML", b"<!doctype html>" + SCRIPT, REFUSED
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg'>" + SCRIPT + b"</svg>", REFUSED
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n", REFUSED
    yield "PDF", b"%PDF-1.7\n1 0 obj << >> endobj\n%%EOF", REFUSED
    yield "ZIP", b"PK\3\4" + bytes(100), REFUSED
    yield "gzip", b"\x1f\x8b\x08" + bytes(100), REFUSED
    yield "a pickle", b"\x80\x04cos\nsystem\n(S'true'\ntR.", REFUSED
    yield "an ELF program", b"\x7fELF" + bytes(200), REFUSED
    yield "a PSD", b"8BPS\0\1" + bytes(100), REFUSED
    yield "a FITS", b"SIMPLE  =                    T" + bytes(2850), REFUSED
    yield "an MPEG", b"\0\0\1\xb3" + bytes(100), REFUSED
    yield "XBM, a form that is a program's text", b"#define a_width 9\n#define a_height 9\n", REFUSED
    yield "a polyglot: GIF and JavaScript", whole["GIF"] + b";alert(1)", EITHER
    yield "a polyglot: PNG and ZIP", whole["PNG"] + b"PK\3\4" + bytes(100), EITHER
    yield "a polyglot: JPEG and HTML", whole["JPEG"] + SCRIPT, EITHER
    yield "a polyglot: HTML, then PNG", SCRIPT + whole["PNG"], REFUSED
    yield "a PNG's first bytes", b"\x89PNG\r\n\x1a\n", REFUSED
    yield "a JPEG's first bytes", b"\xff\xd8\xff\xe0", REFUSED


def _noisy(data, rng):
    noisy = bytearray(data)
    for _ in range(10):
        noisy[rng.randrange(20, len(data))] = rng.randrange(256)
    return bytes(noisy)


NAMES = {  # as they are sent, percent-encoded -> none of them is a picture's name
    "..%2fa.png",
    "%2e%2e/%2e%2e/a.png",
    "a/%2e%2e/%2e%2e/%2e%2e/a.png",
    "%2e",
    "%2fetc/a.png",
    "a//b.png",
    "a/",
    "a%00.png",
    "%00",
    "a%0ab.png",
    "a%0d%0aX-Evil:%201.png",
    "a%1b[2Jb.png",
    "..%5c..%5ca.png",
    "C:%5ca.png",
    "%ed%a0%80.png",  # half of a surrogate pair
    "%ff%fe.png",
    "a%e2%80%aegnp.png",  # turns the direction of writing
    "a" * 1001,
    "/".join(["a" * 100] * 11),
    "%c3%a9" * 501,
    "a/thumbnail",
}
