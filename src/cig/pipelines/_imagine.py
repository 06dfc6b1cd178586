"""The pseudo-target of one query of one's own: made once, kept by what it was made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cig.config import user_cache
from cig.errors import IncompleteError, PictureError
from cig.generators import Composing, Generation
from cig.io.digests import digest_of, file_digest, fingerprints
from cig.io.feature_cache import FeatureCache
from cig.io.locks import hold
from cig.pipelines._models import compose_first, load_composer, load_sdxl
from cig.retrieval.finder import REFERENCE_WEIGHT, SOURCE, ComposedQuery
from cig.runtime import Compute, jsonable
from cig.types import Benchmark, Query

if TYPE_CHECKING:
    from cig.models.composer import Composer
    from cig.types import Generator


def imagine(
    question: ComposedQuery,
    load: Callable[[], tuple[Composer, Generator]],
    how: Generation,
    *,
    compute: Compute,
    cache_folder: Path,
) -> Path:
    """The picture that is imagined of a search's first image and text: made once, kept by what it was made of.

    Raises:
        IncompleteError: the generator's pictures were all refused.
        PictureError: the image cannot be read.
    """
    from cig.generators._compose import ComposedConditions
    from cig.generators._generate import ImagineTask

    reference = question.images[0]
    query = Query(digest_of([file_digest(reference), question.text]), "reference", (question.text,))
    part = Benchmark("search", (query,), {"reference": reference}, (), (), False, REFERENCE_WEIGHT, SOURCE)
    trying = how.imagining
    composer, generator = load()
    composed = ComposedConditions(part, composer)
    made_by = [asdict(trying), generator.settings, fingerprints(generator.identity), composed.settings]
    folder = cache_folder / "imagined" / digest_of(jsonable(made_by))
    with hold(folder, "a pseudo-target"):
        task = ImagineTask(part, composed, generator, out=folder, how=trying, batch_size=1)
        compose_first([task], [composed], composer, generation=how, compute=compute)
        done = task.make()
    if why := done.missing.get(query.id):
        raise PictureError(why)
    if query.id not in done.pictures:
        raise IncompleteError("the generator's pictures were all refused; try another --seed, or leave --imagine out")
    return done.pictures[query.id]


def imagine_by(
    question: ComposedQuery,
    cache: FeatureCache,
    compute: Compute,
    *,
    composing: Composing | None = None,
    generation: Generation | None = None,
) -> Path:
    """The same, by the models that flags name; they are loaded for this picture."""
    return imaginer(cache, compute, composing=composing, generation=generation)(question)


def imaginer(
    cache: FeatureCache, compute: Compute, *, composing: Composing | None = None, generation: Generation | None = None
) -> Callable[[ComposedQuery], Path]:
    """Return what imagines one query after the other, by the models that flags name; the generator stays loaded."""
    composing, generation = composing or Composing(), generation or Generation()

    @functools.cache
    def load() -> tuple[Composer, Generator]:
        return load_composer(composing, compute, cache), load_sdxl(generation, compute, cache)

    folder = cache.path.parent if cache.path else user_cache()
    return functools.partial(imagine, load=load, how=generation, compute=compute, cache_folder=folder)
