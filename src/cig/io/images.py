"""From a path to pixels: bounded decoding, and the two published ways of preprocessing for CLIP."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cig.errors import CigError, PictureError, PixelsError, reason
from cig.io.digests import digest
from cig.io.files import read_bytes
from cig.runtime import batches

if TYPE_CHECKING:
    from torch import Tensor

Preprocessing = Literal["clip", "targetpad"]
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
TARGET_RATIO = 1.25  # SEARLE pads a picture that is longer than this
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 2**28
_max_pixels = MOST_PIXELS


def limit_pixels(most: int) -> None:
    """Refuse larger pictures before they are decoded; Pillow's own limit is set to the same."""
    global _max_pixels
    _max_pixels = Image.MAX_IMAGE_PIXELS = most


@contextmanager
def usual_pixels() -> Iterator[None]:
    """At least as large pictures are decoded here as an evaluation decodes, whatever a stranger's may have."""
    before = _max_pixels
    limit_pixels(max(before, MOST_PIXELS))
    try:
        yield
    finally:
        limit_pixels(before)


@dataclass(frozen=True)
class Picture:
    image: Image.Image  # as stored: any mode, first frame, no EXIF rotation
    digest: str  # sha256 of the file


def read_picture(path: Path) -> Picture:
    """Raises PictureError, naming the file, if it cannot be decoded whole or has too many pixels."""
    try:
        return decode_picture(read_bytes(path))
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from error
    except CigError as error:
        raise PictureError(str(error)) from error


def decode_picture(data: bytes) -> Picture:
    """The content of a file; raises PictureError."""
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
        check_pixels(*image.size)
        image.load()
        check_pixels(*image.size)  # an icon may hold another size than it says
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PixelsError(f"{reason(error)} (--max-pixels)") from error
    except UnidentifiedImageError as error:  # its message names an object in memory
        raise PictureError("not a whole picture: its first bytes are those of no known form") from error
    except Exception as error:  # decoders raise whatever a damaged file makes them
        raise PictureError(f"not a whole picture: {reason(error)}") from error
    return Picture(image, digest(data))


def suffix_of(image: Image.Image) -> str:
    """How a file with this content is called; .png where there is no such name among those that are looked for."""
    return {"JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}.get(image.format or "", ".png")


@cache
def _formats() -> list[str]:
    """Those of ours that this Pillow knows; others, such as EPS, are programs, which it would run."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def check_pixels(width: int, height: int, what: str = "") -> None:
    if not width * height:
        raise PixelsError(f"{what}{width} x {height} has no pixels")
    if width * height > _max_pixels:
        raise PixelsError(f"{what}{width} x {height} is over {_max_pixels} pixels (--max-pixels)")


@dataclass(frozen=True)
class Preprocess:
    """A picture -> [3, size, size] float32, in one of the published orders of the same steps.

    The crop of stage 1 (transformers) rounds down, that of stage 3 (torchvision) to even: a pixel apart for some
    sizes. Stage 1 converts to RGB first, stage 3 last, which differs for palettes and transparency.
    """

    size: int = 224
    pad: bool = False  # SEARLE's targetpad
    rgb_first: bool = False  # stage 1

    def __call__(self, image: Image.Image) -> Tensor:
        import torch

        image = image.convert("RGB") if self.rgb_first else image
        image = target_pad(image) if self.pad else image
        image = self._crop(_resize_shortest(image, self.size)).convert("RGB")
        pixels = np.asarray(image, dtype=np.float32) / 255
        pixels -= MEAN  # in place: memory that threads give back in pieces is not given back to the machine
        pixels /= STD
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def _crop(self, image: Image.Image) -> Image.Image:
        left, top = ((side - self.size) / 2 for side in image.size)
        left, top = (left // 1, top // 1) if self.rgb_first else (round(left), round(top))
        return image.crop((int(left), int(top), int(left) + self.size, int(top) + self.size))


def target_pad(image: Image.Image, ratio: float = TARGET_RATIO) -> Image.Image:
    """SEARLE's: zeros around the short side until the ratio is at most 1.25."""
    width, height = image.size
    if max(width, height) / min(width, height) < ratio:
        return image
    across, down = (max(int((max(width, height) / ratio - side) / 2), 0) for side in (width, height))
    check_pixels(width + 2 * across, height + 2 * down, "padded, it would be ")
    zeros = 0 if len(image.getbands()) == 1 else (0,) * len(image.getbands())
    return ImageOps.expand(image, border=(across, down, across, down), fill=zeros)


def _resize_shortest(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short == size:
        return image
    longer = int(size * long / short)
    check_pixels(size, longer, "resized, it would be ")
    return image.resize((size, longer) if width <= height else (longer, size), Image.Resampling.BICUBIC)


Jobs = list[tuple[Path, Future]]


@dataclass(frozen=True)
class Batch:
    paths: tuple[Path, ...]  # those that could be decoded
    pixels: tuple[Tensor, ...]  # one [B, 3, S, S] for each preprocessing asked for
    digests: tuple[str, ...]
    failed: dict[Path, str]  # path -> why not


def read_batches(
    paths: Sequence[Path], preprocesses: Sequence[Preprocess], batch_size: int, workers: int = 4
) -> Iterator[Batch]:
    """Each picture is decoded once, a batch ahead of its use; what cannot be decoded is reported, never skipped."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        chunks = iter(batches(paths, batch_size))
        ahead = _submit(pool, next(chunks, ()), preprocesses)
        while ahead:
            batch = _collect(ahead)
            ahead = _submit(pool, next(chunks, ()), preprocesses)
            yield batch


def _submit(pool: ThreadPoolExecutor, paths: Sequence[Path], preprocesses: Sequence[Preprocess]) -> Jobs:
    return [(path, pool.submit(_read, path, preprocesses)) for path in paths]


def read_pixels(path: Path, preprocess: Preprocess) -> Tensor:
    """[3, size, size]; raises PictureError, naming the file."""
    return _read(path, [preprocess])[1][0]


def _read(path: Path, preprocesses: Sequence[Preprocess]) -> tuple[str, list[Tensor]]:
    picture = read_picture(path)
    try:
        return picture.digest, [preprocess(picture.image) for preprocess in preprocesses]
    except Exception as error:
        raise PictureError(f"{path}: cannot be converted ({picture.image.mode}): {reason(error)}") from error


def _collect(jobs: Jobs) -> Batch:
    import torch

    done: dict[Path, tuple[str, list[Tensor]]] = {}
    failed: dict[Path, str] = {}
    for path, job in jobs:
        try:
            done[path] = job.result()
        except PictureError as error:
            failed[path] = str(error)
    columns = zip(*(pixels for _, pixels in done.values()), strict=True)
    pixels = tuple(torch.stack(column) for column in columns)
    return Batch(tuple(done), pixels, tuple(name for name, _ in done.values()), failed)
