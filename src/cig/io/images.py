"""Read pictures: decode with bounds, and preprocess for CLIP in either of the two published ways."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cig.errors import CigError, PictureError, PixelsError, reason
from cig.io.digests import digest
from cig.io.files import read_bytes
from cig.runtime import batches

if TYPE_CHECKING:
    from torch import Tensor

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
TARGET_RATIO = 1.25  # SEARLE pads a picture whose sides have a larger ratio
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 2**28
_max_pixels = MOST_PIXELS


def limit_pixels(most: int) -> None:
    """Refuse larger pictures before decoding; sets Pillow's limit too."""
    global _max_pixels
    _max_pixels = Image.MAX_IMAGE_PIXELS = most


def most_pixels() -> int:
    """Return how many pixels a picture may have."""
    return _max_pixels


@contextmanager
def evaluation_pixel_limit() -> Iterator[None]:
    """Within the context, raise the pixel limit at least to that of evaluations, so that both accept the same files."""
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
    """Decode a file; raises PictureError, which names it, if it does not decode whole or has too many pixels."""
    try:
        return decode_picture(read_bytes(path))
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from error
    except CigError as error:
        raise PictureError(str(error)) from error


def decode_picture(data: bytes) -> Picture:
    """Decode the content of a file; raises PictureError."""
    # Pictures come from the web and from strangers' archives. A file of a few kilobytes can state a size that fills
    # the memory, so the size is checked before the pixels are decoded; and some formats that Pillow opens (EPS) are
    # programs that it hands to an interpreter, so only FORMATS are opened.
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
        check_pixels(*image.size)
        image.load()
        check_pixels(*image.size)  # an icon may hold another size than it states
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PixelsError(f"{reason(error)} (--max-pixels)") from error
    except UnidentifiedImageError as error:  # its message names an object in memory
        raise PictureError("not a whole picture: its first bytes are those of no known form") from error
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise PictureError(f"not a whole picture: {reason(error)}") from error
    return Picture(image, digest(data))


def suffix_of(image: Image.Image) -> str:
    """Return the suffix for a file with this content; .png if its format has none in dataset_paths.SUFFIXES."""
    return {"JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}.get(image.format or "", ".png")


@cache
def _formats() -> list[str]:
    """List the FORMATS that this build of Pillow can open."""
    Image.init()
    heif = ("HEIF",) if reads_heic() else ()
    return [name for name in (*FORMATS, *heif) if name in Image.OPEN]


@cache
def reads_heic() -> bool:
    """Return whether HEIC is read: pillow-heif is there, which the extra `heic` installs."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def check_pixels(width: int, height: int, what: str = "") -> None:
    if not width * height:
        raise PixelsError(f"{what}{width} x {height} has no pixels")
    if width * height > _max_pixels:
        raise PixelsError(f"{what}{width} x {height} is over {_max_pixels} pixels (--max-pixels)")


ToPixels = Callable[[Image.Image], "Tensor"]  # a preprocessing: a picture to [3, S, S] float32


@dataclass(frozen=True)
class Preprocess:
    """Turn a picture into [3, size, size] float32, in one of the published orders of the same steps.

    Stage 1 (transformers) rounds the crop's margin down, stage 3 (torchvision) to even, so the crops of some sizes
    are a pixel apart. Stage 1 converts to RGB first, stage 3 last, which differs for palettes and transparency.

    The feature cache and the settings of every report contain this record: renaming it or a field invalidates them.
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
        pixels -= MEAN  # in place: the allocator keeps what many threads free in pieces, and the process would grow
        pixels /= STD
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def _crop(self, image: Image.Image) -> Image.Image:
        left, top = ((side - self.size) / 2 for side in image.size)
        left, top = (left // 1, top // 1) if self.rgb_first else (round(left), round(top))
        return image.crop((int(left), int(top), int(left) + self.size, int(top) + self.size))


@dataclass(frozen=True)
class Upright:
    """Show a picture as people see it before a preprocessing: turned as its EXIF says, transparency on white.

    For pictures of one's own; benchmarks read as the published code does. The representation is part of cached
    features' keys.
    """

    then: ToPixels

    def __call__(self, image: Image.Image) -> Tensor:
        return self.then(upright(image))


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says, lay what is transparent on white, and return it as RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def target_pad(image: Image.Image, ratio: float = TARGET_RATIO) -> Image.Image:
    """Pad the short side with zeros until the ratio of the sides is at most 1.25, as SEARLE does."""
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
class PictureBatch:
    paths: tuple[Path, ...]  # of the pictures that decoded
    pixels: tuple[Tensor, ...]  # one [B, 3, S, S] for each preprocessing
    digests: tuple[str, ...]
    failed: dict[Path, str]  # path -> error


def read_batches(
    paths: Sequence[Path], preprocesses: Sequence[ToPixels], batch_size: int, *, workers: int = 4
) -> Iterator[PictureBatch]:
    """Decode each picture once, a batch ahead of its use; report pictures that do not decode, never skip them."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        chunks = iter(batches(paths, batch_size))

        def submit() -> Jobs:
            return [(path, pool.submit(_read, path, preprocesses)) for path in next(chunks, ())]

        ahead = submit()
        while ahead:
            batch = _collect(ahead)
            ahead = submit()
            yield batch


def read_pixels(path: Path, preprocess: ToPixels) -> Tensor:
    """Read a picture as [3, size, size]; raises PictureError, which names the file."""
    return _read(path, [preprocess])[1][0]


def _read(path: Path, preprocesses: Sequence[ToPixels]) -> tuple[str, list[Tensor]]:
    picture = read_picture(path)
    try:
        return picture.digest, [preprocess(picture.image) for preprocess in preprocesses]
    except Exception as error:
        raise PictureError(f"{path}: cannot be converted ({picture.image.mode}): {reason(error)}") from error


def _collect(jobs: Jobs) -> PictureBatch:
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
    return PictureBatch(tuple(done), pixels, digests=tuple(name for name, _ in done.values()), failed=failed)
