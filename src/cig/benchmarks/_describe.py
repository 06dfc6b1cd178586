"""Describe a benchmark: sizes, lengths of captions, truncated prompts, repetitions, oddities.

These need annotations alone; near-duplicates are searched among the pictures on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from cig.benchmarks._check import EXAMPLES, Finding, fields, line, target_names
from cig.io.image_checks import BITS, ReadableImage, check_images, near_duplicates
from cig.models.prompts import PROMPT, prompts
from cig.models.tokenizer import PLACEHOLDER, Tokenizer, openai_tokenizer
from cig.types import Benchmark, Query

CONTEXT = 77  # tokens that CLIP's text towers and SDXL read, start and end included
NEAR = 4  # bits of 64 that near-duplicates differ in at most: docs/check.md says what that finds
ODD = {
    "overflow": f"queries with a prompt over {CONTEXT} tokens, which is cut",
    "no words": "queries with a caption of no words",
    "same captions": "queries whose captions say the same",
    "asked again": "queries with the reference and captions of another one",
    "word": f"queries with a {PLACEHOLDER} in a caption, which is a pseudo-word, too",
    "own target": "queries whose reference is a correct answer",
    "outside": "queries whose target the gallery does not list",
}

QUARTILES = ("least", "25%", "median", "75%", "most")
Spread = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class NearDuplicates:
    """Near-duplicates among the gallery's pictures on disk."""

    hashed: int
    blank: int  # left out: a hash says nothing about one colour
    unreadable: int  # left out
    bits: int  # of 64: the largest difference of two near-duplicates
    pictures: Mapping[str, str]  # a picture with near-duplicates -> one of them
    queries: int  # whose target is among these


@dataclass(frozen=True)
class Stats:
    """The numbers of one part of a benchmark."""

    title: str
    part: str
    queries: int
    captions: int
    references: int  # distinct
    repeated: int  # queries that share their reference with another query
    most_repeated: tuple[str, int]  # a reference, and how many queries have it
    targets: int  # distinct; 0 where they are hidden
    gallery: int | None  # None if its list is missing
    gallery_is: str
    missing_list: str  # its path; "" if it exists
    unnamed: int | None  # pictures of the gallery that no query names
    prompts: int  # one for each order of a query's captions
    cut: int  # prompts of more tokens than fit
    spreads: Mapping[str, Spread]  # what is counted -> how often
    oddities: tuple[Finding, ...]  # in the annotations
    caveats: tuple[str, ...]  # that the dataset is known for
    near: NearDuplicates | None  # None if not searched


def stats(part: Benchmark, caveats: Sequence[str] = (), pictures: bool = True, *, workers: int = 4) -> Stats:
    """Describe a part.

    Args:
        caveats: what the dataset is known for.
        pictures: decode the gallery's pictures on disk, and search near-duplicates among them.
    """
    references = Counter(query.reference for query in part.queries)
    named = {*references, *(name for query in part.queries for name in query.relevant)}
    tokens = _tokens_of_prompts(part.queries)
    return Stats(
        title=part.title,
        part=part.part,
        queries=len(part.queries),
        captions=sum(len(query.captions) for query in part.queries),
        references=len(references),
        repeated=sum(count for count in references.values() if count > 1),
        most_repeated=references.most_common(1)[0],
        targets=len({name for query in part.queries for name in target_names(query)}),
        gallery=None if part.missing_list else len(part.gallery),
        gallery_is=part.protocol.get("gallery", ""),
        missing_list=str(part.missing_list or ""),
        unnamed=None if part.missing_list else len(set(part.gallery) - named),
        prompts=sum(map(len, tokens.values())),
        cut=sum(count > CONTEXT for counts in tokens.values() for count in counts),
        spreads=_spreads(part.queries, tokens),
        oddities=_oddities(part, tokens),
        caveats=tuple(caveats),
        near=_near(part, workers) if pictures else None,
    )


# Words


def _tokens_of_prompts(queries: Sequence[Query]) -> dict[str, list[int]]:
    """Count the tokens of each query's prompt, in each order of its captions; start and end included."""
    pairs = [(query.id, text) for query in queries for text in prompts(query.captions)]
    tokens: dict[str, list[int]] = {}
    for (query, _), row in zip(pairs, _tokenizer()([text for _, text in pairs]), strict=True):
        tokens.setdefault(query, []).append(len(row))
    return tokens


@cache
def _tokenizer() -> Tokenizer:
    """Load OpenAI's tokenizer, without truncation."""
    return openai_tokenizer(context=2**30)


def _spreads(queries: Sequence[Query], tokens: Mapping[str, Sequence[int]]) -> dict[str, Spread]:
    captions = [caption for query in queries for caption in query.captions]
    rows = {
        "words a caption": [len(caption.split()) for caption in captions],
        "tokens a caption": [len(row) - 2 for row in _tokenizer()(captions)],  # without start and end
        "tokens a prompt": [count for counts in tokens.values() for count in counts],
    }
    if any(len(query.relevant) > 1 for query in queries):
        rows["correct pictures a query"] = [len(query.relevant) for query in queries]
    return {
        what: tuple(np.percentile(counts, (0, 25, 50, 75, 100)).tolist()) for what, counts in rows.items() if counts
    }


def _oddities(part: Benchmark, tokens: Mapping[str, Sequence[int]]) -> tuple[Finding, ...]:
    gallery = set() if part.missing_list else set(part.gallery)
    repeats = Counter((query.reference, query.captions) for query in part.queries)
    items: dict[str, dict[str, str]] = {kind: {} for kind in ODD}
    for query in part.queries:
        texts, longest = [caption.strip().lower() for caption in query.captions], max(tokens[query.id])
        outside = [name for name in target_names(query) if gallery and name not in gallery]
        captions = " | ".join(query.captions)
        odd = {
            "overflow": (longest > CONTEXT, f"{longest} tokens"),
            "no words": (not all(texts), captions),
            "same captions": (len(texts) > 1 and len(set(texts)) == 1, captions),
            "asked again": (repeats[query.reference, query.captions] > 1, query.reference),
            "word": (any(PLACEHOLDER in text for text in texts), captions),
            "own target": (query.reference in query.relevant, query.reference),
            "outside": (bool(outside), ", ".join(outside)),
        }
        for kind, (occurs, detail) in odd.items():
            if occurs:
                items[kind][query.id] = detail
    return tuple(Finding(kind, ODD[kind], named) for kind, named in items.items() if named)


# Pictures


def _near(part: Benchmark, workers: int, bits: int = NEAR) -> NearDuplicates:
    paths = {name: part.images[name] for name in part.gallery if name in part.images}
    checks = check_images(paths.values(), workers, f"hash {part.title}")
    images = {name: image for name, path in paths.items() if isinstance(image := checks[path], ReadableImage)}
    names = [name for name, image in images.items() if not image.blank]
    others = near_duplicates(np.array([images[name].hash for name in names], dtype=np.uint64), bits)
    pictures = {name: names[other] for name, other in zip(names, others.tolist(), strict=True) if other >= 0}
    return NearDuplicates(
        hashed=len(names),
        blank=len(images) - len(names),
        unreadable=len(paths) - len(images),
        bits=bits,
        pictures=pictures,
        queries=sum(any(name in pictures for name in target_names(query)) for query in part.queries),
    )


# Output


def to_json(part: Stats) -> dict[str, Any]:
    """Return the fields of docs/check.md."""
    facts = {"known" if key == "caveats" else key: value for key, value in asdict(part).items()}
    spreads = {what: dict(zip(QUARTILES, spread, strict=True)) for what, spread in part.spreads.items()}
    return {**facts, "spreads": spreads, "oddities": [fields(finding) for finding in part.oddities]}


def to_text(part: Stats) -> str:
    """Show a part as a paragraph for the terminal."""
    lines = [part.title, *_sizes(part), "", *_table(part.spreads), "", *map(line, part.oddities)]
    lines += [f"  known: {fact}" for fact in part.caveats]
    return "\n".join([*lines, *([_near_line(part.near)] if part.near else [])])


def _sizes(part: Stats) -> list[str]:
    name, count = part.most_repeated
    again = f"; {part.repeated:,} queries share theirs with another, {count} of them {name}" if part.repeated else ""
    if part.gallery is None:
        gallery = f"not known: its list {part.missing_list} is not there"
    else:
        gallery = f"{part.gallery:,} pictures, {part.unnamed:,} of them in no query ({part.gallery_is})"
    return [
        f"  queries     {part.queries:,}, with {part.captions:,} captions",
        f"  references  {part.references:,} distinct{again}",
        f"  targets     {f'{part.targets:,} distinct' if part.targets else 'hidden'}",
        f"  prompts     {part.prompts:,}, {part.cut:,} of them over {CONTEXT} tokens ({PROMPT})",
        f"  gallery     {gallery}",
    ]


def _table(spreads: Mapping[str, Spread]) -> list[str]:
    """Align numbers to the right, under their heads."""
    width = max(map(len, spreads))
    rows = [("", QUARTILES), *((what, [f"{value:g}" for value in spread]) for what, spread in spreads.items())]
    return ["  " + what.ljust(width) + "".join(cell.rjust(8) for cell in cells) for what, cells in rows]


def _near_line(near: NearDuplicates) -> str:
    if not near.hashed:
        return "  near-duplicates: no picture of the gallery is there to be hashed"
    skipped = {"of one colour": near.blank, "unreadable": near.unreadable}
    out = "".join(f", {count:,} {why} left out" for why, count in skipped.items() if count)
    twins = list(near.pictures.items())[:EXAMPLES]
    shown = f"; {', '.join(f'{one} ~ {other}' for one, other in twins)}" if twins else ""
    return (
        f"  near-duplicates: {len(near.pictures):,} of {near.hashed:,} pictures hashed (dHash, at most {near.bits} of "
        f"{BITS} bits apart{out}), among them the targets of {near.queries:,} queries{shown}"
    )
