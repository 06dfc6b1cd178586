"""Generate: composed embeddings -> pseudo-targets, one picture a query (CIG, stage 2)."""

from __future__ import annotations

from pathlib import Path

from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all, need_outside
from cig.errors import NotFoundError
from cig.generators import Generation
from cig.io.dataset_paths import existing_part, part_folder
from cig.io.locks import need_free
from cig.pipelines._models import (
    complain,
    finish,
    generator_checks,
    imagine_tasks,
    load_sdxl,
    need_embeddings,
    need_generator_memory,
)
from cig.runtime import Compute, Work


def generate(
    data: Data,
    compute: Compute,
    generation: Generation | None = None,
    *,
    embeddings: Path | None = None,
    out: Path | None = None,
    work: Work | None = None,
) -> Path:
    """Write one pseudo-target a query into `out`, from a folder of embeddings; return `out`.

    Raises:
        NotFoundError: weights, data or embeddings that are missing, all named at once.
        IncompleteError: queries without an embedding, or without a reference that must be shown; others were done.
    """
    generation, work = generation or Generation(), work or Work()
    embeddings = embeddings or data.default_folder("embeddings", "test")
    out = out or data.default_folder("generated_images", "test")
    checks = [*generator_checks(generation, compute), lambda: need_embeddings(embeddings)]
    parts = need_all(lambda: need_outside(data.load("test"), out), checks)
    from cig.generators._compose import EmbeddingFolder

    sources = [EmbeddingFolder(part, existing_part(embeddings, part, len(data.categories) == 1)) for part in parts]
    if not any(source.files for source in sources):
        raise NotFoundError(f"{embeddings} has no embedding of {parts[0].name}; run `cig extract` for it first")
    for part in parts:
        need_free(part_folder(out, part), work.share)
    generator = load_sdxl(generation, compute)
    with imagine_tasks(parts, sources, generator, generation=generation, out=out, compute=compute, work=work) as tasks:
        if any(task.todo for task in tasks):
            need_generator_memory(generation, compute)
        missing = finish(tasks)
    complain(missing, "have no pseudo-target")
    return out
