"""What a run would take, said beforehand: pictures, disk, memory, hours.

Models are built without weights (torch's meta device) from their configuration files, and one call of each is counted:
its operations exactly, its activations by following which tensors live at once. Hours are an estimate: operations over
half of the rate that matrix products reach on this device, measured for a moment.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cig import registry
from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all
from cig.generators import Composing, Generation
from cig.generators._meta import meta_unet, meta_vae
from cig.generators.sdxl import passes, shown_reference
from cig.io.dataset_paths import part_folder
from cig.io.query_files import find_by_id
from cig.machine import device_name, disk_of
from cig.methods import split_method
from cig.models._meta import meta_clip
from cig.pipelines._models import generator_checks
from cig.retrieval.requests import Searching
from cig.runtime import Compute, resolve_device, resolve_dtype
from cig.types import Benchmark

REACHED = 0.5  # of the rate of matrix products, by whole models: a guess, which the plan names
PNG = 1.8  # bytes a pixel, for photographs: another
FEATURE = 5_000  # bytes a picture in the feature cache


@dataclass(frozen=True)
class CallCost:
    """Of one call of a model."""

    weights: int  # bytes
    activations: int  # bytes that live at once
    operations: float


class Alive(TorchDispatchMode):
    """Follows how many bytes of tensors live at once while it is on."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.storages = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.storages:
            self.storages.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.storages.discard(key)
        self.now -= size


def cost(model: torch.nn.Module, call: Callable[[], object]) -> CallCost:
    """Of a model on the meta device."""
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    with torch.no_grad(), FlopCounterMode(display=False) as counted, Alive(model) as alive:
        call()
    return CallCost(weights, alive.peak, float(counted.get_total_flops()))


def clip_costs(
    source: str, dtype: torch.dtype, batch: int, *, cache_dir: Path | None = None
) -> tuple[CallCost, CallCost]:
    """(picture tower, text tower) for a batch."""
    vision, text = meta_clip(source, dtype, cache_dir)
    size, words = vision.config.image_size, text.config.max_position_embeddings
    pixels = torch.empty(batch, 3, size, size, device="meta", dtype=dtype)
    ids = torch.zeros(batch, words, device="meta", dtype=torch.long)
    return cost(vision, lambda: vision(pixel_values=pixels)), cost(text, lambda: text(input_ids=ids))


def sdxl_costs(
    model_path: str,
    vae_repo: str,
    dtype: torch.dtype,
    *,
    batch: int,
    size: tuple[int, int],
    cache_dir: Path | None = None,
    guidance: float = 5.0,
    image_guidance: float = 1.5,
) -> tuple[CallCost, CallCost]:
    """(one step of the UNet, the VAE's work) for a batch of pictures of size (height, width).

    With guidance a step is two passes, or three of a UNet that is shown the reference, which the VAE encodes, unless
    the guidance by it is 1.
    """
    unet, vae = meta_unet(model_path, dtype, cache_dir), meta_vae(vae_repo, dtype, cache_dir)
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    grid = tuple(side // 8 for side in size)  # of a picture's latents
    shown = shown_reference(config)
    rows = batch * passes(shown, guidance, image_guidance)

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, device="meta", dtype=dtype)

    def step() -> None:
        condition = {"text_embeds": empty(rows, pooled), "time_ids": empty(rows, 6)}
        latents, words = empty(rows, config.in_channels, *grid), empty(rows, 77, config.cross_attention_dim)
        unet(latents, torch.empty((), device="meta"), words, added_cond_kwargs=condition)

    def pictures() -> None:
        if shown:
            vae.encode(empty(batch, 3, *size))
        vae.decode(empty(batch, config.out_channels, *grid))

    return cost(unet, step), cost(vae, pictures)


# What the machine has


def rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of matrix products, measured for about half a second."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device).to(dtype)
    (a @ a).sum().item()  # warm
    started, done = time.monotonic(), 0
    while time.monotonic() - started < 0.5:
        (a @ a).sum().item()
        done += 1
    return done * 2 * side**3 / (time.monotonic() - started)


def memory_of(device: torch.device) -> int:
    """Free bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# The plan


@dataclass(frozen=True)
class Amounts:
    """What a run has to do, in numbers."""

    queries: int
    done: int  # queries whose pseudo-target is there
    pictures: int  # to compose from, distinct
    searched: int  # to search with, distinct, pseudo-targets included

    @property
    def to_imagine(self) -> int:
        return self.queries - self.done


def plan(
    data: Data,
    compute: Compute,
    composing: Composing | None = None,
    *,
    generation: Generation | None = None,
    searching: Searching | None = None,
    out: Path | None = None,
) -> tuple[str, bool]:
    """What `run` with the same arguments would take, in lines, and whether disk and memory suffice.

    Raises:
        NotFoundError: data or configurations that are not there.
    """
    composing, generation, searching = composing or Composing(), generation or Generation(), searching or Searching()
    out = out or data.default_folder("runs", "val")
    device = resolve_device(compute.device)
    dtypes = [resolve_dtype(compute.dtype, device, on_gpu) for on_gpu in ("float32", "float16")]
    parts = need_all(lambda: data.load("val"), generator_checks(generation, compute))
    todo = amounts(parts, out)
    batch, size, cache_dir = compute.batch_size, (generation.height, generation.width), compute.cache_dir
    pair = [clip_costs(name, dtypes[0], batch, cache_dir=cache_dir) for name in (composing.clip, composing.clip2)]
    sdxl = sdxl_costs(
        str(generation.unet),
        generation.vae_repo,
        dtypes[1],
        batch=batch,
        size=size,
        cache_dir=cache_dir,
        guidance=generation.guidance_scale,
        image_guidance=generation.image_guidance_scale,
    )
    family, variant = split_method(searching.method)
    clip = searching.clip or registry.load("methods", family).VARIANTS[variant].clip
    nothing = CallCost(0, 0, 0.0)  # a method may have no model
    searcher = clip_costs(clip, dtypes[0], batch, cache_dir=cache_dir) if clip else (nothing, nothing)
    disk = todo.to_imagine * size[0] * size[1] * PNG + todo.searched * FEATURE
    memory = _memory(pair, sdxl, searcher, offload=generation.offload)
    reached = REACHED * rate(device, dtypes[1])
    work = {
        "imagine": todo.to_imagine * (generation.steps * sdxl[0].operations + sdxl[1].operations) / batch,
        "compose": sum(_work(cost, todo.pictures, todo.to_imagine) for cost in pair) / batch,
        "search": _work(searcher, todo.searched, 2 * todo.queries) / batch,
    }
    free = {"disk": disk_of(out), "memory": memory_of(device)}
    hours = ", ".join(f"{_hours(operations / reached)} to {what}" for what, operations in work.items())
    lines = [
        f"imagine  {todo.to_imagine} pictures, {size[1]} x {size[0]}, {generation.steps} steps ({todo.done} are there)",
        f"search   {todo.searched} pictures, {todo.queries} queries, with and without pseudo-targets",
        f"disk     about {_gb(disk)} in {out}; {_gb(free['disk'])} are free{_verdict(disk < free['disk'])}",
        f"memory   about {_gb(memory)} at --batch-size {batch}; {_gb(free['memory'])} are free on "
        f"{device_name(device)}{_verdict(memory < free['memory'])}",
        f"time     about {hours}; retries of dark pictures and loading come on top",
        f"         (at {reached / 1e12:.3g} T operations a second, half of what matrix products reach here, measured "
        f"now; a picture takes {work['imagine'] / max(todo.to_imagine, 1) / 1e12:.3g} T; expect a factor of two)",
    ]
    if memory >= free["memory"]:
        lines.append("         lower --batch-size, or use --offload model, --vae-slicing, --attention-slicing")
    return "\n".join(lines), disk < free["disk"] and memory < free["memory"]


def amounts(parts: Sequence[Benchmark], out: Path) -> Amounts:
    """Of what the annotations name and is there, and of what a run into `out` has left to do."""
    done = sum(len(_done(part, part_folder(out / "pseudo_targets", part))) for part in parts)
    queries = sum(len(part.queries) for part in parts)
    references = {part.images.get(query.reference) for part in parts for query in part.queries} - {None}
    gallery = {part.images[name] for part in parts for name in part.gallery if name in part.images}
    return Amounts(queries, done, len(references), len(gallery | references) + queries)


def _done(part: Benchmark, folder: Path) -> dict[str, Path]:
    return find_by_id(folder, [query.id for query in part.queries], [".png"]) if folder.is_dir() else {}


def _memory(
    composing: Sequence[tuple[CallCost, CallCost]],
    sdxl: tuple[CallCost, CallCost],
    searcher: tuple[CallCost, CallCost],
    *,
    offload: str,
) -> int:
    """At its highest: while imagining, or while searching."""
    towers = [tower for pair in composing for tower in pair]
    generator = sum(model.weights for model in sdxl) if offload == "none" else max(model.weights for model in sdxl)
    imagining = sum(tower.weights for tower in towers) + generator
    imagining += max(model.activations for model in (*towers, *sdxl))
    return max(imagining, sum(tower.weights for tower in searcher) + max(tower.activations for tower in searcher))


def _work(pair: tuple[CallCost, CallCost], pictures: int, texts: int) -> float:
    return pictures * pair[0].operations + texts * pair[1].operations


def _verdict(enough: bool) -> str:
    return "" if enough else ": NOT ENOUGH"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
