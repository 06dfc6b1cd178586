"""Extract: reference + caption -> composed embeddings, one file a query (CIG, stage 1)."""

from __future__ import annotations

from pathlib import Path

from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all, need_pictures
from cig.generators import Composing
from cig.io.dataset_paths import part_folder
from cig.io.locks import need_free
from cig.pipelines._models import complain, load_composer, phi_checks, say_foreign
from cig.runtime import Compute, Work, say


def extract(
    data: Data,
    compute: Compute,
    composing: Composing | None = None,
    *,
    out: Path | None = None,
    work: Work | None = None,
) -> Path:
    """Write one `{id}.pt` a query into `out`; return that folder.

    Raises:
        NotFoundError: weights or data that are missing, all named at once.
        IncompleteError: references that are missing or unreadable; the other queries were done.
    """
    composing, work = composing or Composing(), work or Work()
    parts = need_all(lambda: data.load("test"), phi_checks(composing))
    from cig.generators._compose import extract as extract_part

    need_pictures(parts, references=True)
    out = out or data.default_folder("embeddings", "test")
    for part in parts:
        need_free(part_folder(out, part), work.share)
    composer = load_composer(composing, compute)
    missing: dict[str, str] = {}
    for part in parts:
        folder = part_folder(out, part)
        done = extract_part(
            part,
            composer,
            folder,
            batch_size=compute.batch_size,
            overwrite=work.overwrite,
            workers=compute.num_workers,
            shard=work.share,
        )
        say(f"{part.title}: {done.made} embeddings written to {folder}, {done.kept} kept")
        say_foreign(done.foreign)
        missing |= {f"{part.title}/{query}": reason for query, reason in done.missing.items()}
    complain(missing, "had no readable reference and have no embedding")
    return out
