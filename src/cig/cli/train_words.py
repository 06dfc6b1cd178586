"""The verbs of `cig train` that find words: concepts of pictures, and phrases with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cig.cli.flags import ComputeFlags, Flag, Preprocess, computing, output_file
from cig.cli.next_steps import after_concepts, after_phrases
from cig.errors import IncompleteError, UsageError, at_least_1, plain
from cig.io import outputs
from cig.runtime import Compute, Dtype


def concepts(
    pictures: str,
    /,
    *,
    clip: str,
    vocabulary: str,
    out: Annotated[Path, output_file(outputs.CONCEPTS)],
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 250,
    preprocess_type: Preprocess = "targetpad",
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None,
    references: Annotated[bool, Flag] = False,
    limit: int | None = None,
    vocabulary_from: str | None = None,
    feature_cache: Path | None = None,
    batch_size: int = 32,
    compute: ComputeFlags = Compute(),
) -> None:
    """Finds each picture's most similar names of a vocabulary (SEARLE's concept association).

    Pictures that cannot be read are named, and have no row; then the exit code is 1.

    Parameters
    ----------
    pictures
        A folder of pictures of any depth (ImageNet's layout is one), or a benchmark: icons/train, circo/val.
    clip
        A CLIP or another dual tower: a hub id or a folder.
    vocabulary
        A file with a name a line, a table with a column DisplayName, or open-images: its class names, downloaded once.
    out
        The table, .csv or .parquet: a row a picture. A card is written beside it.
    k
        Names a picture.
    preprocess_type
        targetpad is SEARLE's.
    dataset_path
        The benchmark's folder, or its parent.
    references
        Of a benchmark: the references of its queries alone.
    limit
        The first so many pictures; with --references, the references of the first so many queries. Default: all.
    vocabulary_from
        The address of Open Images' class names. Default: where the project publishes them.
    feature_cache
        A folder where features of pictures and names are kept, so that a rerun goes on.
    batch_size
        Pictures at once.
    """
    from cig.io.feature_cache import FeatureCache
    from cig.models.dual_encoder import load_tower
    from cig.runtime import resolve_device, resolve_dtype
    from cig.training.data.association import associate
    from cig.training.data.concepts import check_form, write_concepts
    from cig.training.data.pictures import load_pictures, load_references
    from cig.training.data.vocabulary import ADDRESS, OPEN_IMAGES, load_vocabulary
    from cig.training.processes import need_one

    need_one("train concepts", "start it once; several GPUs may each take some folders, with one --feature-cache")
    check_form(out)
    for flag, value in {"-k": k, "--limit": limit}.items():
        at_least_1(flag, 1 if value is None else value)
    compute = computing(compute, batch_size)
    device = resolve_device(compute.device)
    picture_list = (load_references if references else load_pictures)(pictures, dataset_path, limit)
    if vocabulary != OPEN_IMAGES and not Path(vocabulary).is_file():  # before the CLIP, which may be a long download
        load_vocabulary(vocabulary)
    tower = load_tower(clip, device, resolve_dtype(compute.dtype, device), cache_dir=compute.cache_dir)
    names = load_vocabulary(vocabulary, vocabulary_from or ADDRESS)  # a download comes once all else is right
    cache, pad = FeatureCache(feature_cache), preprocess_type == "targetpad"
    made = associate(
        picture_list,
        names,
        tower,
        pad=pad,
        k=k,
        batch_size=compute.batch_size,
        workers=compute.num_workers,
        cache=cache,
    )
    write_concepts(out, made)
    print(f"{out}: {len(made.pictures):,} pictures, each with {k} of {len(names.names):,} names")
    if made.unreadable:
        lines = (f"{plain(name, 200)}: {plain(why, 300)}" for name, why in list(made.unreadable.items())[:20])
        raise IncompleteError(
            "\n  ".join([f"pictures that have no names: {len(made.unreadable)}; {out}.json has all", *lines])
        )
    after_concepts(out)


def phrases(
    concepts: str,
    /,
    *,
    out: Annotated[Path, output_file(outputs.PHRASES)],
    model: str = "EleutherAI/gpt-neo-2.7B",
    count: int = 256,
    temperature: float = 0.5,
    top_k: int = 50,
    max_length: int = 35,
    no_repeat: int = 2,
    seed: int = 0,
    batch_size: int = 256,
    vocabulary_from: str | None = None,
    layout: Literal["jsonl", "published"] = "jsonl",
    shard: str = "1/1",
    device: str = "auto",
    dtype: Dtype = "auto",
    cache_dir: Path | None = None,
) -> None:
    """Lets a language model continue `a photo of CONCEPT that`; a rerun continues with the concepts that are left.

    Concepts that are not in all of their phrases are named, and left out by whoever reads the file. Defaults are
    SEARLE's.

    Parameters
    ----------
    concepts
        A table of `cig train concepts`, whose distinct names are taken; or a vocabulary as there.
    out
        Gets a JSON line a concept (.jsonl). A card is written beside it.
    model
        A causal language model: a hub id, a folder with safetensors, or a file .gguf.
    count
        Phrases a concept.
    temperature
        Of the draws.
    top_k
        Draws are from so many likeliest tokens.
    max_length
        Tokens of a phrase, those of the prompt included.
    no_repeat
        No sequence of so many tokens comes twice in a phrase; 0: any may.
    seed
        What is drawn depends on it and the concept.
    batch_size
        Phrases at once.
    vocabulary_from
        The address of Open Images' class names. Default: where the project publishes them.
    layout
        published: also write concept_to_phrases.pkl beside it, as SEARLE's code does, for its programs.
    shard
        I/N: this share of the concepts, counted from 1, into a file of its own; `cat` makes one of them.
    device
        cuda, cuda:1, mps, cpu; auto takes a GPU where there is one.
    dtype
        auto: float16 on a GPU, as published, float32 on a CPU.
    cache_dir
        The hub's cache.
    """
    from cig.runtime import Shard, resolve_device, resolve_dtype
    from cig.training.data.language_model import Sampling, load_language_model
    from cig.training.data.phrases import check_form, describe_lost, generate_phrases, write_pickle
    from cig.training.data.vocabulary import ADDRESS, load_concepts
    from cig.training.processes import need_one

    need_one("train phrases", "give each GPU a shard and a file: --shard 1/2 --device cuda:0 --out one.jsonl")
    check_form(out)
    at_least_1("--batch-size", batch_size)
    share = Shard.parse(shard)
    if layout == "published" and share.of > 1:
        raise UsageError(
            "--layout published writes the phrases of all concepts: make the shards, join them and their settings "
            "(cat one.jsonl two.jsonl > all.jsonl; cp one.jsonl.json all.jsonl.json), then run without --shard"
        )
    sampling = Sampling(
        count=count,
        temperature=temperature,
        top_k=top_k,
        max_length=max_length,
        no_repeat=no_repeat,
        seed=seed,
    )
    resolved = resolve_device(device)  # before a vocabulary is downloaded
    names = share.take(list(dict.fromkeys(load_concepts(concepts, vocabulary_from or ADDRESS))))
    speaker = load_language_model(model, resolved, resolve_dtype(dtype, resolved, "float16"), cache_dir=cache_dir)
    done = generate_phrases(names, speaker, sampling, out=out, batch_size=batch_size)
    print(f"{out}: {done.concepts:,} concepts, {done.made:,} of them now, each with {count} phrases")
    if layout == "published":
        print(f"{write_pickle(out)}: the same for SEARLE's programs")
    if done.lost:
        print(describe_lost(done.lost))
    if share.of == 1:
        after_phrases(concepts, out)
