"""A model's preprocessing of pictures, as the files of its folder describe it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from cig.errors import InputError, MismatchError, reason, some
from cig.io.images import MEAN, STD, Preprocess, check_pixels, target_pad
from cig.io.json_files import read_object

if TYPE_CHECKING:
    from torch import Tensor

FILES = ("processor_config.json", "preprocessor_config.json")  # the first may hold both processors of a model
SWITCHES = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
CLIP = "CLIPImageProcessorPil"
CALLS = {"data_format", "input_data_format", "device", "return_tensors", "disable_grouping"}  # are no settings
TRIALS = ((64, 48), (48, 64))  # sizes of pictures


@dataclass(frozen=True)
class OwnPreprocess:
    """Turn a picture into [3, S, S] float32 as the model's own image processor does, without torchvision.

    The representation contains all settings: it is part of the key of cached features. So are the names of the class
    and its fields; renaming one invalidates every cache.
    """

    processor: str  # the name of a class in transformers
    settings: str  # its settings, as JSON with sorted keys
    pad: bool = False  # SEARLE's targetpad first

    def __call__(self, image: Image.Image) -> Tensor:
        image = image.convert("RGB")
        image = target_pad(image) if self.pad else image
        self._check_pixels(*image.size)
        outputs = _processor(self.processor, self.settings)(images=image, return_tensors="pt")
        pixels: Tensor = outputs["pixel_values"][0]
        if set(outputs) != {"pixel_values"} or pixels.dim() != 3:
            raise ValueError(f"{self.processor} makes {some(outputs)}, not pixels of one size alone")
        return pixels.float()

    def _check_pixels(self, width: int, height: int) -> None:
        """Limit the size of a resized picture: before the crop, a very narrow one can become huge."""
        size = json.loads(self.settings).get("size") or {}
        if edge := size.get("shortest_edge"):
            check_pixels(edge, edge * max(width, height) // min(width, height), "resized, it would be ")
        check_pixels(size.get("width") or 1, size.get("height") or 1, "resized, it would be ")


ClipPreprocess = Preprocess | OwnPreprocess  # the published one, or the model's own


@lru_cache(maxsize=8)
def _processor(name: str, settings: str) -> Any:
    import transformers

    return getattr(transformers, name).from_dict(json.loads(settings))


def from_published(pixels: Tensor, preprocess: ClipPreprocess | None) -> Tensor:
    """Return drawn pixels [B, 3, S, S], preprocessed as published, as another preprocessing makes them of 8 bits.

    Args:
        preprocess: None for the published one.
    """
    if preprocess is None or isinstance(preprocess, Preprocess):
        return pixels
    import torch

    mean, std = (torch.from_numpy(values)[:, None, None] for values in (MEAN, STD))
    drawn = ((pixels * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return torch.stack([preprocess(Image.fromarray(picture)) for picture in drawn])


def load_preprocess(folder: Path) -> OwnPreprocess:
    """Load a model's preprocessing, and try it on two shapes: its outputs must fit into one batch."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil", trust_remote_code=False)
        preprocess = OwnPreprocess(type(processor).__name__, json.dumps(processor.to_dict(), sort_keys=True))
        shapes = {preprocess(Image.new("RGB", size)).shape for size in TRIALS}
    except Exception as error:
        raise InputError(f"the preprocessing of {folder} cannot be used: {reason(error)}") from error
    if len(shapes) > 1:
        raise MismatchError(f"{folder} prepares pictures to sizes that fit into no batch; give another model")
    return preprocess


def preprocessing_file(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the file that describes the preprocessing of a model's folder, and its fields; None without one.

    As in transformers, an `image_processor` in processor_config.json comes before preprocessor_config.json.
    """
    both, pictures = (folder / name for name in FILES)
    fields = read_object(both) if both.is_file() else {}
    nested = fields.get("image_processor")
    if nested is not None:
        if not isinstance(nested, dict):
            raise MismatchError(f"{both}: image_processor is {_short(nested)}; expected an object")
        return both, nested
    if pictures.is_file():
        return pictures, read_object(pictures)
    return (both, fields) if fields.keys() & FIELDS.keys() else None


def load_clip_preprocess(folder: Path, side: int) -> OwnPreprocess | None:
    """Load the preprocessing of a CLIP's folder; None if it is the published one, or if the folder has none.

    A field that the files do not have, or that is null, has the published value (Radford et al., 2021).

    Args:
        side: of the pictures that the tower reads, in pixels.

    Raises:
        MismatchError: a field has a value that cannot be meant, or the tower reads pictures of another size; the
            message names the file and the field.
        InputError: a file cannot be read.
    """
    described = preprocessing_file(folder)
    if described is None:
        return None
    file, fields = described
    fields = {name: value for name, value in fields.items() if value is not None}
    _check_fields(file, fields)
    fields |= {name: [fields[name]] * 3 for name in ("image_mean", "image_std") if _is_number(fields.get(name))}
    name = _class_name(file, fields)
    if name == CLIP:
        fields = {**_published(side), **fields}
        if _is_published(fields, side):
            return None
    preprocess = _build(file, name, fields)
    _check_outputs(file, preprocess, side)
    return preprocess


def _published(side: int) -> dict[str, Any]:
    """Return the published preprocessing, in the fields of a CLIPImageProcessor."""
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    numbers = {"image_mean": MEAN.tolist(), "image_std": STD.tolist(), "rescale_factor": 1 / 255}
    return {**sizes, **numbers, "resample": int(Image.Resampling.BICUBIC), **dict.fromkeys(SWITCHES, True)}


def _is_published(fields: Mapping[str, Any], side: int) -> bool:
    published = _published(side)
    alike = {
        "size": fields["size"] in (side, published["size"]),
        "crop_size": fields["crop_size"] in (side, published["crop_size"]),
        **{
            name: all(math.isclose(*pair, rel_tol=1e-6) for pair in zip(fields[name], published[name], strict=True))
            for name in ("image_mean", "image_std")
        },
        "rescale_factor": math.isclose(fields["rescale_factor"], published["rescale_factor"], rel_tol=1e-9),
    }
    return all(alike.get(name, fields[name] == value) for name, value in published.items())


def _class_name(file: Path, fields: Mapping[str, Any]) -> str:
    """Return the name of the processor's class that works without torchvision; CLIP's if the file names none."""
    import transformers

    field = next((name for name in ("image_processor_type", "feature_extractor_type") if name in fields), "")
    if not field:
        return CLIP
    stem = str(fields[field]).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if not stem.endswith("ImageProcessor") or not hasattr(transformers, f"{stem}Pil"):
        raise MismatchError(
            f"{file}: {field} is {_short(fields[field])}, which is none of transformers' image processors; CLIP's is "
            f'"CLIPImageProcessor"'
        )
    return f"{stem}Pil"


def _build(file: Path, name: str, fields: Mapping[str, Any]) -> OwnPreprocess:
    import transformers

    kind = getattr(transformers, name)
    taken = kind.valid_kwargs.__annotations__.keys() - CALLS
    settings = {field: value for field, value in fields.items() if field in taken}
    try:
        settings = kind.from_dict(settings).to_dict()
        return OwnPreprocess(name, json.dumps(settings, sort_keys=True))
    except Exception as error:  # of a value that only this class looks at
        raise MismatchError(f"{file}: {name} cannot be built of it: {reason(error)}") from error


def _check_outputs(file: Path, preprocess: OwnPreprocess, side: int) -> None:
    """Raise MismatchError unless pictures come out with the size that the tower reads, on two trials."""
    try:
        shapes = {tuple(preprocess(Image.new("RGB", size)).shape) for size in TRIALS}
    except Exception as error:
        raise MismatchError(f"{file}: no picture can be prepared by it: {reason(error)}") from error
    wrong = sorted(shapes - {(3, side, side)})
    if wrong:
        raise MismatchError(
            f"{file}: size and crop_size prepare pictures of {' x '.join(map(str, wrong[0]))}, and the picture tower "
            f"reads 3 x {side} x {side} (image_size in config.json); get the file that belongs to the model"
        )


def _check_fields(file: Path, fields: Mapping[str, Any]) -> None:
    """Raise MismatchError for the first field with a value that cannot be meant."""
    for name, value in fields.items():
        expected, is_right = FIELDS.get(name, ("", None))
        if is_right and not is_right(value):
            raise MismatchError(f"{file}: {name} is {_short(value)}; expected {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**16


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_deviation(value: Any) -> bool:
    return value > 0 if _is_number(value) else _is_triple(value) and min(value) > 0


def _is_size(value: Any) -> bool:
    if not isinstance(value, dict):
        return _is_side(value)
    sides = {name: side for name, side in value.items() if side is not None}
    allowed = ({"shortest_edge"}, {"shortest_edge", "longest_edge"}, {"height", "width"})
    return set(sides) in allowed and all(map(_is_side, sides.values()))


def _is_crop(value: Any) -> bool:
    return _is_size(value) and (isinstance(value, int) or "height" in value)


FIELDS: dict[str, tuple[str, Any]] = {
    "image_mean": ("3 finite numbers", lambda value: _is_number(value) or _is_triple(value)),
    "image_std": ("3 finite numbers over 0", _is_deviation),
    "size": ("a side in pixels, {shortest_edge}, or {height, width}", _is_size),
    "crop_size": ("a side in pixels, or {height, width}", _is_crop),
    "resample": (
        "one of Pillow's filters, 0 to 5",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 5,
    ),
    "rescale_factor": ("a finite number over 0", lambda value: _is_number(value) and value > 0),
    **dict.fromkeys((*SWITCHES, "do_convert_rgb"), ("true or false", lambda value: isinstance(value, bool))),
}


def _short(value: Any) -> str:
    return f"{json.dumps(value):.60}"
