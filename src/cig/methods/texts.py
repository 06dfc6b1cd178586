"""Target descriptions from a file, by the query's id: the search of CIReVL, LDRE and OSrCIR, by text features alone.

The texts are what `cig rewrite` or a language model of the user's wrote: a JSON object {id: text or list of texts}, or
JSONL with a line a query, {"id": ..., "texts": [...]} ("text", "caption" and "target" are read, too). A query's
feature is the mean of its texts' unit features, or a weighted mean: LDRE (Yang et al., SIGIR 2024) weighs each of
several descriptions by how near it is to the others (`weights=similarity`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cig.errors import InputError, UsageError
from cig.io.digests import identity
from cig.io.files import read_bytes
from cig.methods import Option, Source
from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower, unit
from cig.types import Query

OPTIONS = {
    "texts": Option("a JSON object {query id: text or texts}, or JSONL with an id and texts a line", is_model=True),
    "weights": Option("of several texts: equal, the default, or similarity (LDRE's)"),
}
KEYS = ("texts", "text", "target", "rewritten", "caption")  # of a line; the first that is there is taken


class TargetTexts(DualTower):
    """A pseudo-target changes nothing: no picture is looked at. A branch of this method needs no pictures."""

    family = "texts"
    uses_picture = False
    asks_for_queries = True

    def __init__(self, variant: str, source: Source) -> None:
        if "texts" not in source.options:
            raise UsageError("texts wants --method-option texts=FILE, a JSON object or JSONL: query id -> texts")
        self.weights = source.options.get("weights", "equal")
        if self.weights not in ("equal", "similarity"):
            raise UsageError(f'texts\' option weights is "{self.weights}"; give equal or similarity')
        self.path = Path(source.options["texts"])
        self.texts = read_texts(self.path)
        super().__init__(variant, source)
        self.identity = {**self.identity, "texts": identity(self.path), "weights": self.weights}

    def no_text(self, queries: Sequence[Query]) -> dict[str, str]:
        return {query.id: f"no text in {self.path}" for query in queries if not self.texts.get(query.id)}

    def embed_captions(self, captions: Sequence[tuple[str, ...]], *, queries: Sequence[Query] = ()) -> Tensor:
        """Return unit rows [B, d] by the queries' ids; raise UsageError without them: a caption has no text here."""
        if not queries:
            raise UsageError(f"{self.name} knows queries of a benchmark alone, by their ids; choose another --method")
        texts = [self.texts[query.id] for query in queries]
        features = unit(self.tower.embed_texts([text for several in texts for text in several]))
        rows = [self._mean(one) for one in features.split([len(several) for several in texts])]
        return unit(torch.stack(rows))

    def _mean(self, features: Tensor) -> Tensor:
        """Return the mean [d] of a query's unit text features [n, d]."""
        if self.weights == "equal" or len(features) < 3:
            return features.mean(dim=0)
        nearness = (features @ features.T).sum(dim=1) - 1
        return (torch.softmax(nearness / (len(features) - 1), dim=0)[:, None] * features).sum(dim=0)

    def embed_queries(
        self,
        image_features: Tensor,
        captions: Sequence[tuple[str, ...]],
        *,
        queries: Sequence[Query] = (),
        paths: Sequence[Path] = (),
    ) -> Tensor:
        return self.embed_captions(captions, queries=queries)


def read_texts(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Read query id -> texts; raise InputError for a file of another form."""
    data = read_bytes(path).decode("utf-8", "replace")
    try:
        whole = json.loads(data)
        pairs = [*whole.items()] if isinstance(whole, dict) and "id" not in whole else _pairs(path, whole)
    except (ValueError, RecursionError):
        pairs = _pairs(
            path, [_line(path, number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
        )
    texts = {str(query): _texts(path, query, value) for query, value in pairs if query != "settings"}
    if not texts:
        raise InputError(
            f"{path} has no text; it should hold {{query id: text}}, or a line a query with an id and texts"
        )
    return texts


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}, line {number} is not JSON; write {{"id": ..., "texts": [...]}}') from error


def _pairs(path: Path, lines: Any) -> list[tuple[Any, Any]]:
    lines = lines if isinstance(lines, list) else [lines]
    pairs = []
    for line in lines:
        if not isinstance(line, dict):
            raise InputError(f"{path} is neither a JSON object nor JSONL of objects")
        if "settings" in line and "id" not in line:
            continue  # what `cig rewrite` writes first
        query = next((line[key] for key in ("id", "query_id", "pairid", "query") if key in line), None)
        value = next((line[key] for key in KEYS if key in line), None)
        if query is None or value is None:
            raise InputError(f"{path}: a line without an id or texts has the keys {', '.join(map(str, line))[:200]}")
        pairs.append((query, value))
    return pairs


def _texts(path: Path, query: Any, value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):  # an object that holds a query's texts beside other facts
        value = next((value[key] for key in KEYS if key in value), value)
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list) or not all(isinstance(text, str) for text in several):
        raise InputError(f'{path}: query "{query}" has neither a text nor a list of texts')
    return tuple(text for text in several if text.strip())


load = TargetTexts
