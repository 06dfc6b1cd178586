"""What a run would take, said beforehand: pictures, disk, memory, hours.

Models are built without weights (torch's meta device) from their configuration files, and one call of each is counted:
its operations exactly, its activations by following which tensors live at once. Hours are an estimate: operations over
a share of the rate that matrix products reach on this device, measured for a moment; where the folder has pictures of a
run, imagining is taken from what that run took.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all
from cig.errors import NotFoundError
from cig.generators import Composing, Generation
from cig.generators._meta import meta_unet, meta_vae, resident_size
from cig.generators.sdxl import passes, shown_reference
from cig.io.dataset_paths import part_folder
from cig.io.manifest import read_cost
from cig.io.query_files import find_by_id
from cig.machine import available_memory, device_name, disk_of
from cig.methods import weights_of
from cig.models._meta import meta_clip
from cig.pipelines._models import generator_checks
from cig.retrieval.requests import Searching
from cig.runtime import Compute, resolve_device, resolve_dtype
from cig.types import Benchmark

# The share of the rate of matrix products that whole models reach. On a CPU (one core of a Xeon, float32) a UNet of
# SDXL's kind reached 0.9 at 512 x 512, and a picture tower 0.5; on GPUs nothing was measured, and 0.5 is a guess.
REACHED = {"imagine": {"cpu": 0.9}, "compose": {"cpu": 0.5}, "search": {"cpu": 0.5}}
GUESS = 0.5
EMBEDDED_QUERY = 870_000  # bytes of a composed query, for SDXL
PNG = 1.8  # bytes a pixel, for photographs: another
FEATURE = 5_000  # bytes a picture in the feature cache


@dataclass(frozen=True)
class CallCost:
    """Of one call of a model."""

    weights: int  # bytes
    activations: int  # bytes that live at once
    operations: float
    largest_layer: int = 0  # bytes of its weights


Pair = tuple[CallCost, CallCost]  # picture and text tower, or UNet and VAE
NOTHING = CallCost(0, 0, 0.0)  # a method may have no model


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
    return CallCost(weights, alive.peak, float(counted.get_total_flops()), resident_size([model], "sequential"))


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
    """Operations a second of matrix products, at their fastest within half a second: others may use the device."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device).to(dtype)
    (a @ a).sum().item()  # warm
    ends = [time.monotonic()]
    while ends[-1] - ends[0] < 0.5:
        (a @ a).sum().item()
        ends.append(time.monotonic())
    return 2 * side**3 / min(end - start for start, end in itertools.pairwise(ends))


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
    compose_dtype = resolve_dtype(composing.dtype or compute.dtype, device)
    search_dtype = resolve_dtype(compute.dtype, device)
    dtype = resolve_dtype(compute.dtype, device, "float16")
    parts = need_all(lambda: data.load("val"), generator_checks(generation, compute))
    todo = amounts(parts, out)
    batch, size = compute.batch_size, (generation.height, generation.width)
    lacking: list[str] = []
    where: Any = {"cache_dir": compute.cache_dir, "lacking": lacking}
    pairs = [_counted(source, compose_dtype, batch, **where) for source in (composing.clip, composing.clip2)]
    sdxl = _generator_costs(generation, dtype, batch, cache_dir=compute.cache_dir)
    searcher = _counted(searching.clip or weights_of(searching.method).clip, search_dtype, batch, **where)
    disk = todo.to_imagine * size[0] * size[1] * PNG + todo.searched * FEATURE
    memory = _memory(pairs, sdxl, searcher, offload=generation.offload)
    if device.type == "cpu":
        memory["imagine"] += todo.to_imagine * EMBEDDED_QUERY
    most, highest = max((size, name) for name, size in memory.items())
    work = {
        "imagine": todo.to_imagine * (generation.steps * sdxl[0].operations + sdxl[1].operations) / batch,
        "compose": sum(_work(cost, todo.pictures, todo.to_imagine) for cost in pairs) / batch,
        "search": _work(searcher, todo.searched, 2 * todo.queries) / batch,
    }
    dtypes = {"imagine": dtype, "compose": compose_dtype, "search": search_dtype}
    seconds, based_on = _seconds(
        work, dtypes, device, pictures=todo.to_imagine, earlier=read_cost(out / "pseudo_targets")
    )
    free = {"disk": disk_of(out), "memory": available_memory(device)}
    lines = [
        f"imagine  {todo.to_imagine} pictures, {size[1]} x {size[0]}, {generation.steps} steps ({todo.done} are there)",
        f"search   {todo.searched} pictures, {todo.queries} queries, with and without pseudo-targets",
        f"disk     about {_gb(disk)} in {out}; {_gb(free['disk'])} are free{_verdict(disk < free['disk'])}",
        f"memory   about {_gb(most)} at --batch-size {batch}, to {highest} as {dtypes[highest]}; {_gb(free['memory'])} "
        f"are available on {device_name(device)}{_verdict(most < free['memory'])}",
        f"time     about {_times(seconds)}; retries of dark pictures and loading come on top",
        f"         (by {based_on}; expect a factor of two)",
        *(
            f"lacking  {name} is not here and not counted: cig models download {name}"
            for name in dict.fromkeys(lacking)
        ),
    ]
    if most >= free["memory"]:
        lines.append(f"         {_advice(device, highest, set(dtypes.values()))}")
    return "\n".join(lines), disk < free["disk"] and most < free["memory"]


def _counted(source: str | None, dtype: torch.dtype, batch: int, *, cache_dir: Path | None, lacking: list[str]) -> Pair:
    try:
        return clip_costs(source, dtype, batch, cache_dir=cache_dir) if source else (NOTHING, NOTHING)
    except NotFoundError:
        lacking.append(str(source))
        return NOTHING, NOTHING


def _generator_costs(generation: Generation, dtype: torch.dtype, batch: int, *, cache_dir: Path | None) -> Pair:
    return sdxl_costs(
        str(generation.unet),
        generation.vae_repo,
        dtype,
        batch=batch,
        size=(generation.height, generation.width),
        cache_dir=cache_dir,
        guidance=generation.guidance_scale,
        image_guidance=generation.image_guidance_scale,
    )


def _seconds(
    work: Mapping[str, float],
    dtypes: Mapping[str, torch.dtype],
    device: torch.device,
    *,
    pictures: int,
    earlier: Mapping[str, Any] | None,
) -> tuple[dict[str, float], str]:
    """Return the seconds of each stage, and what they come from."""
    rates = {dtype: rate(device, dtype) for dtype in set(dtypes.values())}
    seconds = {
        name: operations / (rates[dtypes[name]] * REACHED[name].get(device.type, GUESS))
        for name, operations in work.items()
    }
    if earlier:
        seconds["imagine"] = pictures * earlier["seconds"] / max(1, earlier["queries"])
        return seconds, "what the pictures in this folder took"
    fastest = rates[dtypes["imagine"]] / 1e12
    return seconds, f"{fastest:.3g} T operations a second, which matrix products reach here, measured now"


def _advice(device: torch.device, highest: str, dtypes: set[torch.dtype]) -> str:
    """Say what takes less memory; --offload needs a GPU, and --dtype helps where something is in float32."""
    advice = ["lower --batch-size"]
    if torch.float32 in dtypes:
        flag = "--compose-dtype" if highest == "compose" else "--dtype"
        advice.append(f"use {flag} float16 or bfloat16, which halves weights")
    if highest == "imagine":
        advice += ["--offload model or sequential"] if device.type == "cuda" else []
        advice.append("--vae-slicing, --attention-slicing (pixels move a little)")
    return ", or ".join(advice)


def amounts(parts: Sequence[Benchmark], out: Path) -> Amounts:
    """Of what the annotations name and is there, and of what a run into `out` has left to do."""
    done = sum(len(_done(part, part_folder(out / "pseudo_targets", part))) for part in parts)
    queries = sum(len(part.queries) for part in parts)
    references = {part.images.get(query.reference) for part in parts for query in part.queries} - {None}
    gallery = {part.images[name] for part in parts for name in part.gallery if name in part.images}
    return Amounts(queries, done, len(references), len(gallery | references) + queries)


def _done(part: Benchmark, folder: Path) -> dict[str, Path]:
    return find_by_id(folder, [query.id for query in part.queries], [".png"]) if folder.is_dir() else {}


def _memory(composing: Sequence[Pair], sdxl: Pair, searcher: Pair, *, offload: str) -> dict[str, int]:
    """At its highest in each stage: one kind of towers is in memory at once, or the generator alone."""
    sizes = {
        "none": sum(model.weights for model in sdxl),
        "model": max(model.weights for model in sdxl),
        "sequential": max(model.largest_layer for model in sdxl),
    }

    def towers(pairs: Sequence[Pair]) -> int:
        kinds = list(zip(*pairs, strict=True))
        return max(sum(each.weights for each in kind) + max(each.activations for each in kind) for kind in kinds)

    return {
        "compose": towers(composing),
        "imagine": sizes[offload] + max(model.activations for model in sdxl),
        "search": towers([searcher]),
    }


def _work(pair: tuple[CallCost, CallCost], pictures: int, texts: int) -> float:
    return pictures * pair[0].operations + texts * pair[1].operations


def _verdict(enough: bool) -> str:
    return "" if enough else ": NOT ENOUGH"


def _times(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{_hours(spent)} to {name}" for name, spent in seconds.items())


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
