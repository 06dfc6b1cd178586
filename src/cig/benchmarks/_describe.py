"""What a benchmark is made of: sizes, lengths of captions, prompts that are cut, repetitions, oddities.

All of that needs annotations alone; near-duplicates are looked for among the pictures that are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from cig.benchmarks._check import EXAMPLES, Finding, fields, line
from cig.io.image_checks import BITS, ReadableImage, check_images, near_duplicates
from cig.models.clip import PLACEHOLDER, Tokenizer, openai_tokenizer
from cig.models.prompts import PROMPT, prompts
from cig.types import TARGET, Benchmark, Query

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
class Near:
    """Near-duplicates among the gallery's pictures that are there."""

    hashed: int
    blank: int  # left out: a hash says nothing about one colour
    unreadable: int  # left out
    bits: int  # of 64 that two differ in at most
    pictures: Mapping[str, str]  # that have a near-duplicate -> one of theirs
    queries: int  # whose target is among these


@dataclass(frozen=True)
class Stats:
    """Of one part of a benchmark."""

    title: str
    part: str
    queries: int
    captions: int
    references: int  # distinct
    repeated: int  # queries whose reference is another query's, too
    most_repeated: tuple[str, int]  # a reference, and its queries
    targets: int  # distinct; 0 where they are hidden
    gallery: int | None  # None: not known, as its list is missing
    gallery_is: str
    missing_list: str  # the file that would tell; "" where the gallery is known
    unnamed: int | None  # pictures of the gallery that no query names
    prompts: int  # one for each order of a query's captions
    cut: int  # prompts of more tokens than fit
    spreads: Mapping[str, Spread]  # what is counted -> how often
    oddities: tuple[Finding, ...]  # that were found
    known: tuple[str, ...]  # that the dataset is known for
    near: Near | None  # None: not looked for


def stats(part: Benchmark, known: Sequence[str] = (), pictures: bool = True, workers: int = 4) -> Stats:
    """Counts a part; with pictures, decodes those of the gallery that are there."""
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
        targets=len({name for query in part.queries for name in _targets(query)}),
        gallery=None if part.missing_list else len(part.gallery),
        gallery_is=part.protocol.get("gallery", ""),
        missing_list=str(part.missing_list or ""),
        unnamed=None if part.missing_list else len(set(part.gallery) - named),
        prompts=sum(map(len, tokens.values())),
        cut=sum(count > CONTEXT for own in tokens.values() for count in own),
        spreads=_spreads(part.queries, tokens),
        oddities=_oddities(part, tokens),
        known=tuple(known),
        near=_near(part, workers) if pictures else None,
    )


def _targets(query: Query) -> list[str]:
    return [name for name, grade in query.relevant.items() if grade == TARGET]


# Words


def _tokens_of_prompts(queries: Sequence[Query]) -> dict[str, list[int]]:
    """Query -> tokens of its prompt in each order of its captions: start and end included."""
    pairs = [(query.id, text) for query in queries for text in prompts(query.captions)]
    tokens: dict[str, list[int]] = {}
    for (query, _), row in zip(pairs, _tokenizer()([text for _, text in pairs]), strict=True):
        tokens.setdefault(query, []).append(len(row))
    return tokens


@cache
def _tokenizer() -> Tokenizer:
    """OpenAI's, which cuts nothing."""
    return openai_tokenizer(context=2**30)


def _spreads(queries: Sequence[Query], tokens: Mapping[str, Sequence[int]]) -> dict[str, Spread]:
    captions = [caption for query in queries for caption in query.captions]
    rows = {
        "words a caption": [len(caption.split()) for caption in captions],
        "tokens a caption": [len(row) - 2 for row in _tokenizer()(captions)],  # without start and end
        "tokens a prompt": [count for own in tokens.values() for count in own],
    }
    if any(len(query.relevant) > 1 for query in queries):
        rows["correct pictures a query"] = [len(query.relevant) for query in queries]
    return {what: _spread(counts) for what, counts in rows.items() if counts}


def _spread(counts: Sequence[int]) -> Spread:
    least, first, median, third, most = np.percentile(counts, (0, 25, 50, 75, 100)).tolist()
    return least, first, median, third, most


def _oddities(part: Benchmark, tokens: Mapping[str, Sequence[int]]) -> tuple[Finding, ...]:
    gallery = set() if part.missing_list else set(part.gallery)
    asked = Counter((query.reference, query.captions) for query in part.queries)
    found: dict[str, dict[str, str]] = {kind: {} for kind in ODD}
    for query in part.queries:
        said, longest = [own.strip().lower() for own in query.captions], max(tokens[query.id])
        outside = [name for name in _targets(query) if gallery and name not in gallery]
        told = " | ".join(query.captions)
        odd = {
            "overflow": (longest > CONTEXT, f"{longest} tokens"),
            "no words": (not all(said), told),
            "same captions": (len(said) > 1 and len(set(said)) == 1, told),
            "asked again": (asked[query.reference, query.captions] > 1, query.reference),
            "word": (any(PLACEHOLDER in own for own in said), told),
            "own target": (query.reference in query.relevant, query.reference),
            "outside": (bool(outside), ", ".join(outside)),
        }
        for kind, about in ((kind, about) for kind, (is_so, about) in odd.items() if is_so):
            found[kind][query.id] = about
    return tuple(Finding(kind, ODD[kind], own) for kind, own in found.items() if own)


# Pictures


def _near(part: Benchmark, workers: int, bits: int = NEAR) -> Near:
    paths = {name: part.images[name] for name in part.gallery if name in part.images}
    looks = check_images(paths.values(), workers, f"hash {part.title}")
    seen = {name: own for name, path in paths.items() if isinstance(own := looks[path], ReadableImage)}
    names = [name for name, own in seen.items() if not own.blank]
    others = near_duplicates(np.array([seen[name].hash for name in names], dtype=np.uint64), bits)
    pictures = {name: names[other] for name, other in zip(names, others.tolist(), strict=True) if other >= 0}
    return Near(
        hashed=len(names),
        blank=len(seen) - len(names),
        unreadable=len(paths) - len(seen),
        bits=bits,
        pictures=pictures,
        queries=sum(any(name in pictures for name in _targets(query)) for query in part.queries),
    )


# Shown


def to_json(own: Stats) -> dict[str, Any]:
    """The fields of docs/check.md."""
    spreads = {what: dict(zip(QUARTILES, spread, strict=True)) for what, spread in own.spreads.items()}
    return {**asdict(own), "spreads": spreads, "oddities": [fields(finding) for finding in own.oddities]}


def to_text(own: Stats) -> str:
    """A paragraph a part for the terminal."""
    lines = [own.title, *_sizes(own), "", *_table(own.spreads), "", *map(line, own.oddities)]
    lines += [f"  known: {fact}" for fact in own.known]
    return "\n".join([*lines, *([_told(own.near)] if own.near else [])])


def _sizes(own: Stats) -> list[str]:
    name, count = own.most_repeated
    again = f"; {own.repeated:,} queries share theirs with another, {count} of them {name}" if own.repeated else ""
    return [
        f"  queries     {own.queries:,}, with {own.captions:,} captions",
        f"  references  {own.references:,} distinct{again}",
        f"  targets     {f'{own.targets:,} distinct' if own.targets else 'hidden'}",
        f"  prompts     {own.prompts:,}, {own.cut:,} of them over {CONTEXT} tokens ({PROMPT})",
        f"  gallery     {_gallery(own)}",
    ]


def _gallery(own: Stats) -> str:
    if own.gallery is None:
        return f"not known: its list {own.missing_list} is not there"
    return f"{own.gallery:,} pictures, {own.unnamed:,} of them in no query ({own.gallery_is})"


def _table(spreads: Mapping[str, Spread]) -> list[str]:
    """Numbers under their heads, to the right."""
    width = max(map(len, spreads))
    rows = [("", QUARTILES), *((what, [f"{value:g}" for value in spread]) for what, spread in spreads.items())]
    return ["  " + what.ljust(width) + "".join(cell.rjust(8) for cell in cells) for what, cells in rows]


def _told(own: Near) -> str:
    if not own.hashed:
        return "  near-duplicates: no picture of the gallery is there to be hashed"
    left = {"of one colour": own.blank, "unreadable": own.unreadable}
    out = "".join(f", {count:,} {why} left out" for why, count in left.items() if count)
    twins = list(own.pictures.items())[:EXAMPLES]
    shown = f"; {', '.join(f'{one} ~ {other}' for one, other in twins)}" if twins else ""
    return (
        f"  near-duplicates: {len(own.pictures):,} of {own.hashed:,} pictures hashed (dHash, at most {own.bits} of "
        f"{BITS} bits apart{out}), among them the targets of {own.queries:,} queries{shown}"
    )
