"""The UNet of the generator that is trained: SDXL's architecture with random weights, in a small size, or loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cig.errors import MismatchError
from cig.generators.sdxl import shown_reference
from cig.io import hub
from cig.io.json_files import read_object
from cig.io.tensors import read_header, read_tensor
from cig.training.objectives._diffusers import WEIGHTS


@dataclass(frozen=True)
class UNetSize:
    """An architecture by the parameters of UNet2DConditionModel; all blocks but the first attend to the prompt."""

    channels: tuple[int, ...] = (64, 128)  # 4.3 million weights, the most that the package's size allows
    layers: int = 1
    head_width: int = 32
    groups: int = 32
    time_width: int = 32


SIZES = {"tiny": UNetSize((16, 32), head_width=8, groups=8, time_width=8), "small": UNetSize()}


def build(size: UNetSize, *, latents: int, prompt: int, pooled: int, shown: bool = False) -> Any:
    """Build diffusers' UNet2DConditionModel with random weights and SDXL's conditioning (text_time).

    Args:
        latents: channels of the VAE's latents.
        prompt, pooled: widths of the prompt and of the pooled text.
        shown: it reads a reference's latents beside the noisy ones, as InstructPix2Pix does (see `widen`).
    """
    from diffusers import UNet2DConditionModel

    blocks = len(size.channels) - 1
    return UNet2DConditionModel(
        in_channels=2 * latents if shown else latents,
        out_channels=latents,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * blocks),
        up_block_types=(*("CrossAttnUpBlock2D",) * blocks, "UpBlock2D"),
        block_out_channels=size.channels,
        layers_per_block=size.layers,
        attention_head_dim=[channels // size.head_width for channels in size.channels],
        cross_attention_dim=prompt,
        norm_num_groups=size.groups,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=size.time_width,
        projection_class_embeddings_input_dim=pooled + 6 * size.time_width,
    )


def load_unet(source: str, dtype: torch.dtype = torch.float32, cache_dir: Path | None = None) -> Any:
    """Load the UNet of a folder or hub id with unet/; raises NotFoundError or InputError."""
    from diffusers import UNet2DConditionModel

    from cig.generators import need_unet
    from cig.generators._parts import load_part

    return load_part(UNet2DConditionModel, need_unet(source, "--start"), dtype, name="unet", cache_dir=cache_dir)


def meta_unet(source: str, cache_dir: Path | None = None) -> Any:
    """Build the UNet of a folder or hub id without weights; return None for a source that only load_unet explains."""
    from diffusers import UNet2DConditionModel

    where = {"subfolder": "unet", "cache_dir": cache_dir, "revision": hub.commit_of(source, cache_dir)}
    try:
        hub.need_source(source, cache_dir, "UNet")
        with torch.device("meta"):
            return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(source, **where))
    except Exception:
        return None


def stored_weights(source: str, names: Iterable[str], cache_dir: Path | None = None) -> Callable[[str], Tensor]:
    """Return a function that reads one of the weights of a UNet by its name, without loading the others."""
    folder = (Path(source) if os.path.exists(source) else hub.snapshot(source, cache_dir) or Path(source)) / "unet"
    index = folder / f"{WEIGHTS}.index.json"
    parts = set(read_object(index)["weight_map"].values()) if index.is_file() else {WEIGHTS}
    paths = {name: folder / part for part in parts if (folder / part).is_file() for name in read_header(folder / part)}
    if not paths.keys() >= {*names}:  # stored in another form, which diffusers converts
        loaded: dict[str, Tensor] = load_unet(source, cache_dir=cache_dir).state_dict()
        return loaded.__getitem__
    return lambda name: read_tensor(paths[name], name)


def widen(unet: Any) -> Any:
    """Make the UNet read a reference's latents, too; their weights begin as zeros (Brooks et al., CVPR 2023, 3.2)."""
    if shown_reference(unet.config):
        return unet
    narrow = unet.conv_in
    settings = {"kernel_size": narrow.kernel_size, "padding": narrow.padding, "dtype": narrow.weight.dtype}
    unet.conv_in = torch.nn.Conv2d(2 * narrow.in_channels, narrow.out_channels, **settings)
    with torch.no_grad():
        unet.conv_in.weight.zero_()
        unet.conv_in.weight[:, : narrow.in_channels] = narrow.weight
        unet.conv_in.bias.copy_(narrow.bias)
    unet.register_to_config(in_channels=2 * narrow.in_channels)
    return unet


def need_widths(unet: Any, source: str, *, widths: tuple[int, int], latents: int) -> None:
    """Raise MismatchError unless the UNet is of SDXL's kind and fits the CLIPs and the VAE.

    Args:
        widths: of the CLIPs' prompts and pooled texts.
        latents: channels of the VAE's latents.
    """
    if unet.config.addition_embed_type != "text_time":
        raise MismatchError(f"the UNet of {source} is not of SDXL's kind: it reads no pooled text and no sizes")
    if unet.config.out_channels != latents or unet.config.in_channels not in (latents, 2 * latents):
        raise MismatchError(
            f"the UNet of {source} turns {unet.config.in_channels} channels of latents into "
            f"{unet.config.out_channels}, and the VAE's have {latents}; give the VAE that it was trained with"
        )
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    if (unet.config.cross_attention_dim, pooled) != widths:
        raise MismatchError(
            f"the UNet of {source} reads prompts of width {unet.config.cross_attention_dim} and pooled ones of "
            f"{pooled}, but the two CLIPs make {widths[0]} and {widths[1]}; start from one trained with them"
        )
