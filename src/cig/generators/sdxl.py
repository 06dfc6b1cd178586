"""SDXL with a replaced UNet and a VAE that is safe in fp16: what the CIG release generates with.

Text encoders are not loaded: the condition comes composed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import ImageOps
from PIL.Image import Resampling

from cig.errors import InputError, MismatchError, NotFoundError, UsageError, reason
from cig.generators import SDXL_REPO, VAE_REPO, Offload, need_unet
from cig.io import hub
from cig.io.digests import Hasher, file_digest, identity
from cig.runtime import jsonable, quiet_transformers, resolve_device, resolve_dtype
from cig.types import ComposedEmbedding, Generator

if TYPE_CHECKING:
    from PIL.Image import Image

    from cig.io.feature_cache import FeatureCache


class SDXL:
    """A StableDiffusionXLPipeline behind the Generator protocol; or StableDiffusionXLInstructPix2PixPipeline.

    Attributes:
        shown: the UNet reads the reference's latents beside the noisy ones (InstructPix2Pix), so conditions have to
            come with the references' pictures.
    """

    def __init__(
        self,
        pipeline: Any,
        height: int,
        width: int,
        steps: int,
        guidance: float,
        image_guidance: float,
        identity: Mapping[str, Any],
    ) -> None:
        self.pipeline, self.identity = pipeline, identity
        self.size = {"height": height, "width": width}
        self.sampling = {"num_inference_steps": steps, "guidance_scale": guidance}
        self.dtype: torch.dtype = pipeline.unet.dtype
        self.shown = shown_reference(pipeline.unet.config)
        self.settings = {
            **self.size,
            "steps": steps,
            "guidance": guidance,
            "dtype": str(self.dtype),
            "vae_tiling": pipeline.vae.use_tiling,
        }
        if self.shown:  # diffusers guides by both or by neither
            scale = image_guidance if guidance > 1 else 1.0
            self.sampling["image_guidance_scale"] = self.settings["image_guidance"] = scale
        if self.shown and passes(self.shown, guidance, image_guidance) == 2:
            _spare_the_last_third(pipeline.unet)

    def __call__(self, condition: ComposedEmbedding, seeds: Sequence[int]) -> list[Image]:
        """One picture a row, from a torch.Generator of its own; guidance is away from zeros in a prompt's place."""
        self._check(condition)
        device, vae = self.pipeline._execution_device, self.pipeline.vae
        prompt = condition.prompt.to(device, self.dtype)
        pooled = condition.pooled2.to(device, self.dtype)
        exact = vae.dtype
        try:
            with torch.no_grad():
                out = self.pipeline(
                    prompt_embeds=prompt,
                    pooled_prompt_embeds=pooled,
                    negative_prompt_embeds=torch.zeros_like(prompt),
                    negative_pooled_prompt_embeds=torch.zeros_like(pooled),
                    generator=[torch.Generator(device).manual_seed(seed) for seed in seeds],
                    **self._references(condition),
                    **self.size,
                    **self.sampling,
                )
        finally:  # where memory ran out in decoding, it is still as diffusers raised it
            if vae.dtype != exact:
                vae.to(dtype=exact)
        images: list[Image] = out.images
        return images

    def _references(self, condition: ComposedEmbedding) -> dict[str, list[Image]]:
        """Cut to the size that is drawn, around their middle, as they are in training."""
        if not self.shown:
            return {}
        if len(condition.references) != len(condition.ids):
            raise UsageError("the generator is shown the references: give each row of the condition its picture")
        size = self.size["width"], self.size["height"]
        return {"image": [ImageOps.fit(own, size, Resampling.LANCZOS) for own in condition.references]}

    def _check(self, condition: ComposedEmbedding) -> None:
        """Raises MismatchError, naming both widths, before a matrix product would."""
        config = self.pipeline.unet.config
        wants = config.cross_attention_dim, config.projection_class_embeddings_input_dim
        has = condition.prompt.shape[-1], condition.pooled2.shape[-1] + 6 * config.addition_time_embed_dim
        if tuple(wants) != has:
            pooled = wants[1] - 6 * config.addition_time_embed_dim
            raise MismatchError(
                f"the embeddings have width {has[0]} and pooled width {condition.pooled2.shape[-1]}, but the UNet "
                f"reads {wants[0]} and {pooled}; extract with the CLIPs that the UNet was trained with"
            )


def load(
    model_path: str | Path = "models/sdxl_checkpoint",
    sdxl_repo: str = SDXL_REPO,
    vae_repo: str = VAE_REPO,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    height: int = 512,
    width: int = 512,
    steps: int = 50,
    guidance: float = 5.0,
    image_guidance: float = 1.5,
    cache_dir: Path | None = None,
    offload: Offload = "none",
    vae_slicing: bool = False,
    vae_tiling: bool = False,
    attention_slicing: bool = False,
) -> SDXL:
    """The published generator: UNet from `{model_path}/unet` (safetensors), the rest from hub ids or folders.

    A UNet that reads the reference's latents, too, is known by its channels: diffusers/sdxl-instructpix2pix-768.

    Args:
        image_guidance: towards the reference (Brooks et al., CVPR 2023, equation 3), of such a UNet; 1 or more, and 1
            where `guidance` is not over 1.
        dtype: "auto" is float16 on a GPU, as published, and float32 on a CPU.
        offload: diffusers' CPU offload, of whole models or layer by layer; needs a GPU.

    Raises:
        NotFoundError: weights that are not there; the message says where to get and to put them.
    """
    check_size(height, width)
    check_image_guidance(image_guidance)
    _quiet()
    from diffusers import AutoencoderKL, UNet2DConditionModel

    device = resolve_device(str(device))
    precision = resolve_dtype(dtype, device, on_gpu="float16")
    options = {"dtype": precision, "use_safetensors": True, "cache_dir": cache_dir}
    unet = load_part(UNet2DConditionModel, need_unet(model_path), subfolder="unet", **options)
    vae = load_part(AutoencoderKL, vae_repo, **options)
    absent = dict.fromkeys(["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
    parts = {"unet": unet, "vae": vae, "add_watermarker": False, **absent}
    pipeline = load_part(pipeline_for(unet.config), sdxl_repo, **parts, **options)
    pipeline.set_progress_bar_config(disable=True)
    _place(pipeline, device, offload)
    if vae_slicing:
        pipeline.vae.enable_slicing()
    if vae_tiling:  # blends tiles of large pictures, so it is among the settings that move pixels
        pipeline.vae.enable_tiling()
    if attention_slicing:
        pipeline.enable_attention_slicing()
    models = _identities(model_path, sdxl_repo, vae_repo, cache_dir)
    return SDXL(pipeline, height, width, steps, guidance, image_guidance, models)


def shown_reference(config: Any) -> bool:
    """Whether a UNet reads a reference's latents beside the noisy ones."""
    return bool(config.in_channels == 2 * config.out_channels)


def passes(shown: bool, guidance: float, image_guidance: float = 1.5) -> int:
    """How often a step asks the UNet. Guided by the reference at 1, what is told and shown nothing cancels out
    (Brooks et al., CVPR 2023, equation 3)."""
    if guidance <= 1:
        return 1
    return 3 if shown and image_guidance != 1 else 2


def _spare_the_last_third(unet: Any) -> None:
    """For guidance by the reference at 1: diffusers asks the UNet for text and reference, the reference, and nothing,
    as one batch; the last, which it adds and takes away again, becomes a copy of the second."""

    def asked(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        latents, time = args
        count = len(latents) // 3 * 2
        added = {name: own[:count] for name, own in kwargs["added_cond_kwargs"].items()}
        words = kwargs["encoder_hidden_states"][:count]
        return (latents[:count], time), {**kwargs, "encoder_hidden_states": words, "added_cond_kwargs": added}

    def answered(_: Any, args: object, found: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (torch.cat([found[0], found[0].chunk(2)[1]]),)

    unet.register_forward_pre_hook(asked, with_kwargs=True)
    unet.register_forward_hook(answered)


def pipeline_for(config: Any) -> Any:
    """The class of diffusers that draws with a UNet."""
    from diffusers import StableDiffusionXLInstructPix2PixPipeline, StableDiffusionXLPipeline

    return StableDiffusionXLInstructPix2PixPipeline if shown_reference(config) else StableDiffusionXLPipeline


def load_round_trip(
    vae_repo: str, device: str | torch.device, side: int, cache_dir: Path | None = None
) -> Callable[[Image], Image]:
    """A picture -> what the VAE keeps of it: its longer side brought to `side`, encoded (the mean), decoded."""
    _quiet()
    from diffusers import AutoencoderKL
    from diffusers.image_processor import VaeImageProcessor

    place = resolve_device(str(device))
    own = {"dtype": resolve_dtype("auto", place, on_gpu="float16"), "use_safetensors": True, "cache_dir": cache_dir}
    vae = load_part(AutoencoderKL, vae_repo, **own).to(place).eval()
    if vae.config.force_upcast:  # as SDXL's pipeline decodes with it: float16 may overflow
        vae = vae.float()
    pixels = VaeImageProcessor(vae_scale_factor=8)

    def trip(image: Image) -> Image:
        scale = side / max(image.size)
        width, height = (max(8, round(own * scale / 8) * 8) for own in image.size)
        with torch.no_grad():
            batch = pixels.preprocess(image.convert("RGB"), height, width).to(place, vae.dtype)
            decoded = vae.decode(vae.encode(batch).latent_dist.mode()).sample
        if not decoded.isfinite().all():
            raise InputError(f"the VAE {vae_repo} decodes to numbers that are not finite; give another with vae=")
        kept: Image = pixels.postprocess(decoded.float(), output_type="pil")[0]
        return kept

    return trip


def _quiet() -> None:
    """Before diffusers imports anything else: its advice would drown ours."""
    quiet_transformers()
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_lazily(cache: FeatureCache, **options: Any) -> Generator:
    """load(**options), but where its files were described before, they are loaded only when they are needed."""
    options = {"sdxl_repo": SDXL_REPO, "vae_repo": VAE_REPO, "cache_dir": None, **options}
    check_size(options["height"], options["width"])
    check_image_guidance(options.get("image_guidance", 1))
    options["device"] = str(resolve_device(str(options["device"])))
    places = {name: options[name] for name in ("model_path", "sdxl_repo", "vae_repo", "cache_dir")}
    generator: Generator = cache.load_lazily(
        {"sdxl": _identities(**places, hasher=cache.file_digest), "options": jsonable(options)},
        lambda: load(**options),
        lambda made: {"identity": made.identity, "settings": made.settings, "shown": made.shown},
    )
    return generator


def _identities(
    model_path: str | Path, sdxl_repo: str, vae_repo: str, cache_dir: Path | None, hasher: Hasher = file_digest
) -> dict[str, dict[str, str]]:
    local = Path(model_path) / "unet"
    return {
        "unet": identity(local if os.path.isdir(local) else model_path, cache_dir, "unet/config.json", hasher=hasher),
        "vae": identity(vae_repo, cache_dir, hasher=hasher),
        "scheduler": identity(_scheduler(sdxl_repo), cache_dir, "model_index.json", hasher=hasher),
    }


def meta_sdxl(
    model_path: str | Path, vae_repo: str, dtype: torch.dtype, cache_dir: Path | None = None
) -> tuple[Any, Any]:
    """(UNet, VAE) without weights, on torch's meta device: for counting.

    Raises:
        NotFoundError: a configuration is neither in a folder nor in the hub's cache.
    """
    return meta_unet(model_path, dtype, cache_dir), meta_vae(vae_repo, dtype, cache_dir)


def meta_unet(model_path: str | Path, dtype: torch.dtype, cache_dir: Path | None = None) -> Any:
    """As meta_sdxl."""
    _quiet()
    from diffusers import UNet2DConditionModel

    return _meta(UNet2DConditionModel, need_unet(model_path), dtype, cache_dir, subfolder="unet")


def meta_vae(vae_repo: str, dtype: torch.dtype, cache_dir: Path | None = None) -> Any:
    """As meta_sdxl."""
    _quiet()
    from diffusers import AutoencoderKL

    return _meta(AutoencoderKL, vae_repo, dtype, cache_dir)


def _meta(kind: Any, source: str, dtype: torch.dtype, cache_dir: Path | None, **options: Any) -> Any:
    try:
        pinned = hub.commit_of(source, cache_dir)
        config = kind.load_config(source, revision=pinned, cache_dir=cache_dir, local_files_only=True, **options)
    except Exception as error:
        raise NotFoundError(
            f"the configuration of {kind.__name__} {source} is not on this machine; "
            f"give a folder, or fetch it first: cig models download {source}"
        ) from error
    with torch.device("meta"):
        return kind.from_config(config).to(dtype).eval()


def check_size(height: int, width: int) -> None:
    if height % 8 or width % 8 or min(height, width) < 8:
        raise UsageError(f"--height {height} --width {width}: SDXL's VAE wants multiples of 8, such as 512")


def check_image_guidance(scale: float) -> None:
    """Below 1, diffusers would draw without any guidance."""
    if not 1 <= scale < float("inf"):
        raise UsageError(f"--image-guidance-scale {scale:g}: 1 or more, such as 1.5")


def load_part(kind: Any, source: str | Path, **options: Any) -> Any:
    """A model of diffusers from a hub id or a folder; raises NotFoundError or InputError."""
    try:
        return kind.from_pretrained(str(source), revision=hub.commit_of(source, options.get("cache_dir")), **options)
    except Exception as error:
        if os.path.exists(source):
            raise InputError(f"{kind.__name__} cannot be loaded from {source}: {reason(error)}") from error
        raise NotFoundError(
            f"no {kind.__name__} {source}: it is not a folder, and the hub says: {reason(error)} "
            f"Put a copy on this machine and give its folder, or check --cache-dir."
        ) from error


def _scheduler(sdxl_repo: str) -> str:
    """Of the base pipeline only the scheduler is used."""
    local = Path(sdxl_repo) / "scheduler"
    return str(local) if os.path.isdir(local) else sdxl_repo


def _place(pipeline: Any, device: torch.device, offload: Offload) -> None:
    if offload == "none":
        pipeline.to(device)
    elif device.type == "cpu":
        raise UsageError(f"--offload {offload} moves weights between a GPU and memory; this run is on the CPU")
    elif offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
