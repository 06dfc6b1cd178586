"""The verb that measures a published number again: reproduce."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig import config
from cig.cli.flags import OUTPUT_FOLDER, ComposeFlags, ComputeFlags, GenerateFlags, GeneratorName, computing, without
from cig.config import DEFAULT_GENERATOR
from cig.errors import at_least_1
from cig.generators import Composing, Generation, Imagining
from cig.runtime import Compute

SAMPLING = (  # what moves a number, and is a cell's
    *(field.name for field in fields(Imagining)),
    *("height", "width", "steps", "guidance_scale", "image_guidance_scale", "vae_tiling"),
)


def reproduce(
    cell: str | None = None,
    /,
    *,
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None,
    generated_image_dir: Path | None = None,
    search_clip: str | None = None,
    search_phi: Path | None = None,
    compose: Annotated[ComposeFlags, without("preprocess_type")] = Composing(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: Annotated[GenerateFlags, without(*SAMPLING)] = Generation(),
    compute: ComputeFlags = Compute(),
    batch_size: int = 4,
    search_batch_size: int = 32,
    out: Annotated[Path | None, OUTPUT_FOLDER] = None,
) -> None:
    """Measures a published number again, and prints expected beside measured; without a cell, lists them.

    What moves the number is the cell's: cig.toml and flags only say where things lie, and on what to compute.

    Parameters
    ----------
    cell
        A number that somebody published: cirr/searle-xl+cig, icons/pic2word.
    dataset_path
        The dataset's own folder, or its parent. Default: ./datasets/NAME, or cig.toml's.
    generated_image_dir
        Pseudo-targets that were made before, by query id. Default: they are imagined.
    search_clip
        The CLIP that searches, where it is not the method's hub id: a folder. With a phi, the two come together.
    search_phi
        The textual-inversion network that searches. Default: the method's, in ./models.
    batch_size
        Pictures imagined at once; halved where they do not fit into memory.
    search_batch_size
        Pictures embedded at once.
    out
        CELL.json, and a folder for each benchmark: features, pseudo-targets, submissions. Default: ./outputs/reproduce.
    """
    from cig.pipelines.reproduce import reproduce as room
    from cig.pipelines.reproduce.run import Places

    at_least_1("--search-batch-size", search_batch_size)
    places = Places(
        dataset=dataset_path,
        clip=search_clip,
        phi=search_phi,
        pseudo_targets=generated_image_dir,
        composing=compose,
        generation=generation,
        compute=computing(compute, batch_size),
        search_batch=search_batch_size,
        out=out or Path(config.below_project("outputs/reproduce")),
    )
    if cell:
        reproduction = room.reproduce(cell, places)
        print(reproduction.text)
        reproduction.need_sound()
    else:
        print(room.listing(places))
