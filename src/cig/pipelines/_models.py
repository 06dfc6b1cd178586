"""What verbs share: models loaded as they are asked for, pseudo-targets made, what is missing said."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cig import config
from cig.errors import IncompleteError, NotFoundError, UsageError, some
from cig.generators import Composing, Generation, need_unet
from cig.io.dataset_paths import part_folder
from cig.io.locks import hold
from cig.machine import free_memory, need_memory
from cig.pipelines._search_benchmark import load_searcher
from cig.retrieval.requests import Searching
from cig.runtime import Compute, Work, resolve_device, resolve_dtype, say, warn
from cig.types import Benchmark, Generator, Method

if TYPE_CHECKING:
    from cig.generators._compose import ComposedConditions, Conditions
    from cig.generators._generate import ImagineTask
    from cig.io.feature_cache import FeatureCache
    from cig.models.composer import Composer


def phi_checks(composing: Composing) -> list:
    phi, phi2 = composing.phis
    return [lambda: need_phi(phi, "phi_vit", "--phi"), lambda: need_phi(phi2, "phi_giga", "--phi2")]


def generator_checks(generation: Generation, compute: Compute) -> list:
    def options() -> None:
        from cig.generators.sdxl import check_image_guidance, check_offload, check_size

        check_size(generation.height, generation.width)
        check_image_guidance(generation.image_guidance_scale)
        check_offload(generation.offload, resolve_device(compute.device))

    return [lambda: need_unet(generation.unet), options]


def load_composer(composing: Composing, compute: Compute, cache: FeatureCache | None = None) -> Composer:
    from cig.io.feature_cache import FeatureCache
    from cig.models.composer import load_composer_lazily

    device = resolve_device(compute.device)
    dtype = resolve_dtype(composing.dtype or compute.dtype, device)
    phi, phi2 = composing.phis
    return load_composer_lazily(
        composing.clip,
        composing.clip2,
        phi=phi,
        phi2=phi2,
        device=device,
        dtype=dtype,
        cache_dir=compute.cache_dir,
        preprocessing=composing.preprocess_type,
        cache=cache or FeatureCache(),
    )


def load_sdxl(generation: Generation, compute: Compute, cache: FeatureCache | None = None) -> Generator:
    from cig.generators.sdxl import load_lazily
    from cig.io.feature_cache import FeatureCache

    where = {"device": compute.device, "dtype": compute.dtype, "cache_dir": compute.cache_dir}
    return load_lazily(cache or FeatureCache(), **where, **generation.options())


def make_targets(
    parts: Sequence[Benchmark],
    composing: Composing,
    generation: Generation,
    *,
    out: Path,
    compute: Compute,
    work: Work,
    cache: FeatureCache,
) -> None:
    """Compose every part's queries, free the composer, then imagine into `out`; embeddings stay in memory."""
    from cig.generators._compose import ComposedConditions

    composer, generator = load_composer(composing, compute, cache), load_sdxl(generation, compute, cache)
    sources = [ComposedConditions(part, composer, workers=compute.num_workers, cache=cache) for part in parts]
    with imagine_tasks(parts, sources, generator, generation=generation, out=out, compute=compute, work=work) as tasks:
        compose_first(tasks, sources, composer, generation=generation, compute=compute)
        finish(tasks)


@contextlib.contextmanager
def imagine_tasks(
    parts: Sequence[Benchmark],
    sources: Sequence[Conditions],
    generator: Generator,
    *,
    generation: Generation,
    out: Path,
    compute: Compute,
    work: Work,
) -> Iterator[list[ImagineTask]]:
    """Hold the folder of every part, and look at what is left to imagine.

    Raises:
        MismatchError: a folder was made with other settings.
        UsageError: another process works in a folder.
    """
    from cig.generators._generate import ImagineTask

    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.enter_context(hold(part_folder(out, part), "pseudo-targets", work.share))
        yield [
            ImagineTask(
                part,
                source,
                generator,
                out=part_folder(out, part),
                how=generation.imagining,
                batch_size=compute.batch_size,
                overwrite=work.overwrite,
                retry_rejected=work.retry_rejected,
                shard=work.share,
            )
            for part, source in zip(parts, sources, strict=True)
        ]


def compose_first(
    tasks: Sequence[ImagineTask],
    sources: Sequence[ComposedConditions],
    composer: Composer,
    *,
    generation: Generation,
    compute: Compute,
) -> None:
    """Embed the references of all tasks, then compose them, so that no two kinds of models are in memory at once."""
    if not any(task.todo for task in tasks):
        return
    if not any(getattr(task.generator, "loaded", None) for task in tasks):
        need_generator_memory(generation, compute)
    for towers in ("vision", "text"):
        composer.need_memory(towers)
    for task, source in zip(tasks, sources, strict=True):
        source.embed([query for group in task.groups for query in group])
    composer.release("vision")
    for task in tasks:
        task.compose()
    composer.release("text")
    free_memory()


def need_generator_memory(generation: Generation, compute: Compute) -> None:
    """Raise ShortMemoryError before anything is loaded; what is not on this machine yet is not counted."""
    from cig.generators._meta import meta_unet, meta_vae, resident_size

    device = resolve_device(compute.device)
    dtype = resolve_dtype(compute.dtype, device, on_gpu="float16")
    try:
        models = [
            meta_unet(generation.unet, dtype, compute.cache_dir),
            meta_vae(generation.vae_repo, dtype, compute.cache_dir),
        ]
    except Exception:  # a configuration that cannot be used has its error where it is loaded
        return
    need_memory(f"the generator, as {dtype}", resident_size(models, generation.offload), device)


def finish(tasks: Sequence[ImagineTask]) -> dict[str, str]:
    """Imagine every part and say how it went; return queries that could not be composed, and why."""
    missing: dict[str, str] = {}
    for task in tasks:
        part, folder = task.benchmark, task.folder.out
        done = task.make()
        kept = len(done.pictures) + len(done.refused) - done.made
        say(f"{part.title}: {len(done.pictures)} pseudo-targets in {folder} ({done.made} queries done, {kept} kept)")
        say_foreign(done.foreign)
        if done.refused:
            warn(f"queries without an accepted picture: {len(done.refused)} ({some(done.refused)})")
        missing |= {f"{part.title}/{query}": reason for query, reason in done.missing.items()}
    return missing


def load_picture_searcher(searching: Searching, compute: Compute, cache: FeatureCache) -> Method:
    """The method that will search with pseudo-targets.

    It is loaded once now, so that what cannot be loaded or used is said before hours of generation. What is returned
    is the cache's stand-in, which holds no weights until it embeds: the generator has the memory meanwhile.

    Raises:
        UsageError: the method looks at no picture.
    """
    if not load_searcher(searching, compute, cache).uses_picture:
        hint = f"`cig evaluate --method {searching.method}` does without"
        raise UsageError(f"{searching.method} looks at no picture, so there is nothing to imagine; {hint}")
    return load_searcher(searching, compute, cache)


def say_foreign(names: Sequence[str]) -> None:
    if names:
        say(f"files that were there without a line in the manifest, and are kept: {len(names)} ({some(names)})")


def complain(missing: Mapping[str, str], what: str) -> None:
    """Raise IncompleteError that names the queries and their reasons, if there are any."""
    if missing:
        raise IncompleteError(complaint(missing, what))


def complaint(missing: Mapping[str, str], what: str) -> str:
    lines = first_of([f"{query}: {reason}" for query, reason in missing.items()])
    return "\n  ".join([f"queries that {what}: {len(missing)}", *lines])


def first_of(lines: Sequence[str], most: int = 20) -> list[str]:
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return [*lines[:most], *more]


def need_phi(path: Path, key: str, flag: str) -> None:
    """A phi that composes; key is its default place's."""
    if not os.path.isfile(path):
        name = Path(config.PATHS[key])
        raise NotFoundError(
            f"the phi {path} is not there: get {name.name} from {config.CIG_DRIVE} and put it there "
            f"(cig models download {name.stem} --from-dir FOLDER), or give {flag}"
        )


def need_embeddings(path: Path) -> None:
    before, category, _ = str(path).partition("{category}")
    if not os.path.isdir(os.path.dirname(before) or "." if category else path):
        raise NotFoundError(f"{path} is not a folder of embeddings; run `cig extract` first, or check the path")
