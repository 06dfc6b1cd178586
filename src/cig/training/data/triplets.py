"""Published triplets: a benchmark's training split, or a folder in InstructPix2Pix's form."""

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
    """Read the triplets of fashioniq/train, cirr/train or folder/train, one for each target of a query.

    Returns:
        Examples, and the names of triplets that lack a picture.

    Raises:
        UsageError: it is not a training split.
        NotFoundError: no triplet has its pictures.
    """
    if name.partition("/")[2] != "train":
        raise UsageError(f"{name} is for measuring; train on {name.partition('/')[0]}/train")
    rows = [row for part in load_benchmarks(name, root) for row in _of_part(part)]
    examples, missing = _split(rows)
    if not examples:
        raise NotFoundError(f"no triplet of {name} has both its pictures ({len(missing)} are listed)")
    return examples, missing


def _of_part(part: Benchmark) -> Iterator[Example | str]:
    """Yield an example for each target, or its name if a picture is missing."""
    for query in part.queries:
        for target in (name for name, grade in query.relevant.items() if grade == TARGET):
            name = "/".join(filter(None, (part.part, query.id, target)))
            reference, picture = part.images.get(query.reference), part.images.get(target)
            captions = join_captions(query.captions)
            yield Example(name, picture, captions, reference=reference) if reference and picture else name


def _split(rows: Iterable[Example | str]) -> tuple[list[Example], list[str]]:
    rows = list(rows)
    return [row for row in rows if isinstance(row, Example)], [row for row in rows if isinstance(row, str)]


def is_edits(home: Path) -> bool:
    """Tell whether a folder has the layout of InstructPix2Pix's release."""
    return (home / "seeds.json").is_file()


def of_edits(home: Path) -> tuple[list[Example], list[str]]:
    """Read InstructPix2Pix's generated dataset (Brooks et al., CVPR 2023): edits of generated pictures.

    `seeds.json` lists [folder, [seeds]]; in a folder, `prompt.json` has the instruction under "edit", and a seed's
    pictures are `{seed}_0.jpg`, before, and `{seed}_1.jpg`, after.

    Returns:
        Examples, and the folders without a prompt.json.

    Raises:
        InputError: a file has another form.
    """
    listed = read_json(home / "seeds.json")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{home / 'seeds.json'}: expected a list of [folder, [seeds]]")
    return _split(row for entry in listed for row in _edits(home, entry))


def _edits(home: Path, entry: Any) -> Iterator[Example | str]:
    match entry:
        case [str(name), [*seeds]] if all(_is_plain(part) for part in (name, *seeds)):
            folder = home / name
        case _:
            raise InputError(f"{home / 'seeds.json'}: expected [folder, [seeds]], found {str(entry)[:80]}")
    prompt = folder / "prompt.json"
    if not prompt.exists():
        yield name
        return
    if stat_file(prompt).st_size > LARGEST:
        raise InputError(f"{prompt} has more than {LARGEST} bytes")
    captions = captions_of(read_object(prompt).get("edit"))
    for seed in seeds:
        before, after = folder / f"{seed}_0.jpg", folder / f"{seed}_1.jpg"
        yield Example(f"{name}/{seed}", after, captions, reference=before)


def _is_plain(name: Any) -> bool:
    """Tell whether a name is one path component: seeds.json comes from the web, and must not lead elsewhere."""
    return isinstance(name, str) and bool(ID.fullmatch(name))
