"""The embedded corpus: pinned by digest, count, first and last item."""

import hashlib
import lzma

import pytest

from cig.icons.corpus import SPLITS, assets, read_set

# Of icons/test: frozen on 2026-11-24, before any model was trained on this corpus.
DIGESTS = {
    "val": "2efaf5b91a39b2b18a0d08092f17b47933033f7fa5ec8897a34810427849f8cb",
    "test": "43c94d3b6d69df4d9e28181c7f6e50555a3970df848bafb893b4cc149c969fe6",
}


@pytest.mark.parametrize("split", DIGESTS)
def test_the_queries_are_the_frozen_ones(split):
    content = lzma.decompress(assets().joinpath(f"{split}.json.xz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == DIGESTS[split]


def test_the_corpus_is_the_pinned_one():
    counts = {prefix: len(read_set(prefix).icons) for prefixes in SPLITS.values() for prefix in prefixes}
    assert sum(counts.values()) == 49_563
    assert (counts["tabler"], counts["fluent"], counts["mdi"]) == (5_524, 5_558, 5_731)
