"""Triplets of others: a benchmark's training split, or a folder in InstructPix2Pix's form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cig.benchmarks import ID, load_benchmarks
from cig.errors import InputError, NotFoundError, UsageError
from cig.io.files import stat_file
from cig.io.json_files import read_json, read_object
from cig.models.prompts import join_captions
from cig.training.data.captioned_pictures import captions_of
from cig.training.data.scenes import Example
from cig.types import TARGET, Benchmark

LARGEST = 2**20  # bytes of a prompt.json


def of_benchmark(name: str, root: Path | None = None) -> tuple[list[Example], list[str]]:
    """fashioniq/train, cirr/train, folder/train: from the reference, by the caption, to each target.

    Returns:
        Examples, and the names of those that lack a picture.

    Raises:
        UsageError: not a training split.
        NotFoundError: no picture of it is there.
    """
    if name.partition("/")[2] != "train":
        raise UsageError(f"{name} is for measuring; train on {name.partition('/')[0]}/train")
    rows = [row for part in load_benchmarks(name, root) for row in _of_part(part)]
    found, missing = _sorted(rows)
    if not found:
        raise NotFoundError(f"no triplet of {name} has both its pictures ({len(missing)} are listed)")
    return found, missing


def _of_part(part: Benchmark) -> Iterator[Example | str]:
    """A name alone where a picture is missing."""
    for query in part.queries:
        for target in (name for name, grade in query.relevant.items() if grade == TARGET):
            name = "/".join(filter(None, (part.part, query.id, target)))
            reference, picture = part.images.get(query.reference), part.images.get(target)
            yield Example(name, picture, join_captions(query.captions), reference) if reference and picture else name


def _sorted(rows: Iterable[Example | str]) -> tuple[list[Example], list[str]]:
    rows = list(rows)
    return [row for row in rows if isinstance(row, Example)], [row for row in rows if isinstance(row, str)]


def is_edits(home: Path) -> bool:
    """Whether a folder is in InstructPix2Pix's form, as its release is laid out."""
    return (home / "seeds.json").is_file()


def of_edits(home: Path) -> tuple[list[Example], list[str]]:
    """InstructPix2Pix's generated dataset (Brooks et al., CVPR 2023): edits of drawn pictures.

    `seeds.json` lists [folder, [seeds]]; in a folder, `prompt.json` has the instruction under "edit", and a seed's
    pictures are `{seed}_0.jpg`, before, and `{seed}_1.jpg`, after.

    Returns:
        Examples, and the folders without a prompt.json.

    Raises:
        InputError: a file of another form.
    """
    listed = read_json(home / "seeds.json")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{home / 'seeds.json'}: expected a list of [folder, [seeds]]")
    return _sorted(row for entry in listed for row in _edits(home, entry))


def _edits(home: Path, entry: Any) -> Iterator[Example | str]:
    match entry:
        case [str(name), [*seeds]] if all(_is_plain(own) for own in (name, *seeds)):
            folder = home / name
        case _:
            raise InputError(f"{home / 'seeds.json'}: expected [folder, [seeds]], found {str(entry)[:80]}")
    prompt = folder / "prompt.json"
    if not prompt.exists():
        yield name
        return
    if stat_file(prompt).st_size > LARGEST:
        raise InputError(f"{prompt} has more than {LARGEST} bytes")
    said = captions_of(read_object(prompt).get("edit"))
    for seed in seeds:
        yield Example(f"{name}/{seed}", folder / f"{seed}_1.jpg", said, folder / f"{seed}_0.jpg")


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and bool(ID.fullmatch(name))
