"""The generator of the CIG release: SDXL with another UNet and a VAE that is safe in fp16.

Text encoders are not loaded, since the condition is a composed embedding.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from PIL import ImageOps
from PIL.Image import Resampling

from cig.errors import MismatchError, NotFiniteError, UsageError
from cig.generators import SDXL_REPO, VAE_REPO, Offload, need_unet, part_folder
from cig.generators._guidance import skip_third_pass
from cig.generators._parts import load_part, load_pipeline, load_scheduler
from cig.io import hub
from cig.io.digests import Hasher, file_digest, identity
from cig.io.feature_cache import UNKNOWN, Deferred
from cig.models._pretrained import explained
from cig.runtime import quiet_transformers, resolve_device, resolve_dtype
from cig.types import ComposedEmbedding, Described, Generator

if TYPE_CHECKING:
    from PIL.Image import Image

    from cig.io.feature_cache import FeatureCache


class SDXL(Described):
    """A StableDiffusionXLPipeline or StableDiffusionXLInstructPix2PixPipeline as a Generator.

    Attributes:
        shown: the UNet reads the reference's latents beside the noisy ones (InstructPix2Pix), so a condition needs the
            references' pictures.
    """

    def __init__(self, pipeline: Any, settings: Mapping[str, Any], *, identity: Mapping[str, Any]) -> None:
        self.pipeline, self.settings, self.identity = pipeline, settings, identity
        guidance, image_guidance = settings["guidance"], settings.get("image_guidance", 1.0)
        self.size = {"height": settings["height"], "width": settings["width"]}
        self.sampling = {"num_inference_steps": settings["steps"], "guidance_scale": guidance}
        self.dtype: torch.dtype = pipeline.unet.dtype
        self.shown = shown_reference(pipeline.unet.config)
        if self.shown:
            self.sampling["image_guidance_scale"] = image_guidance
        self._finite: list[torch.Tensor] = []  # of each decoding, whether latents and pixels are: [2, B] bool
        pipeline.vae.decoder.register_forward_hook(self._note_finite)
        if self.shown and passes(self.shown, guidance, image_guidance) == 2:
            skip_third_pass(pipeline.unet)

    def __call__(self, condition: ComposedEmbedding, seeds: Sequence[int]) -> list[Image]:
        """Make one picture a row, each by its own torch.Generator; the negative prompt of guidance is zeros."""
        with self._explained():
            self._check(condition)
        device, vae = self.pipeline._execution_device, self.pipeline.vae
        prompt = condition.prompt.to(device, self.dtype)
        pooled = condition.pooled2.to(device, self.dtype)
        # SDXL's VAE decodes in float32, for which diffusers casts it, and casts it back. If memory runs out in between,
        # the cast back is missed, and the smaller batch that is tried next would be encoded or decoded otherwise.
        vae_dtype = vae.dtype
        self._finite.clear()
        try:
            with torch.no_grad(), self._explained():
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
        finally:
            if vae.dtype != vae_dtype:
                vae.to(dtype=vae_dtype)
        self._need_finite(condition.ids)
        images: list[Image] = out.images
        return images

    def _explained(self) -> AbstractContextManager[None]:
        return explained(f"{self!r} makes no picture", "look at the config.json of its parts")

    def _note_finite(self, _: Any, args: tuple[torch.Tensor, ...], pixels: torch.Tensor) -> None:
        self._finite.append(torch.stack([each.isfinite().flatten(1).all(1) for each in (args[0], pixels)]))

    def _need_finite(self, ids: Sequence[str]) -> None:
        """Raise NotFiniteError for pictures that the UNet or the VAE left without numbers; they would be black."""
        latents, pixels = torch.cat(self._finite, dim=1).cpu()
        if pixels.all():
            return
        part, name = ("vae", "VAE") if latents.all() else ("unet", "UNet")
        whole = len(pixels) == len(ids)  # not so for tiles: any of the pictures may be theirs
        bad = [row for row in range(len(ids)) if not (whole and pixels[row])]
        model = f"the {name} {self.identity[part]['source']}"
        raise NotFiniteError(model, str(self.dtype), bad, names=[f"query {ids[row]}" for row in bad])

    def _references(self, condition: ComposedEmbedding) -> dict[str, list[Image]]:
        """Crop the references around their middle to the generated size, as training does."""
        if not self.shown:
            return {}
        if len(condition.references) != len(condition.ids):
            raise UsageError("the generator is shown the references: give each row of the condition its picture")
        size = self.size["width"], self.size["height"]
        return {"image": [ImageOps.fit(image, size, Resampling.LANCZOS) for image in condition.references]}

    def _check(self, condition: ComposedEmbedding) -> None:
        """Raise MismatchError that names both widths, before a matrix product fails on them."""
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
    sdxl_repo: str | Path = SDXL_REPO,
    vae_repo: str | Path = VAE_REPO,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    height: int = 512,
    width: int = 512,
    steps: int = 50,
    guidance: float = 5.0,
    image_guidance: float = 1.5,
    cache_dir: str | Path | None = None,
    offload: Offload = "none",
    vae_slicing: bool = False,
    vae_tiling: bool = False,
    attention_slicing: bool = False,
) -> SDXL:
    """Load the published generator: UNet from `{model_path}/unet` (safetensors), the rest from hub ids or folders.

    A UNet that reads the reference's latents, too, such as diffusers/sdxl-instructpix2pix-768, is recognised by its
    channels.

    Args:
        image_guidance: towards the reference (Brooks et al., CVPR 2023, equation 3), of such a UNet; 1 or more. It has
            no effect unless `guidance` is over 1.
        dtype: "auto" is float16 on a GPU, as published, and float32 on a CPU.
        offload: diffusers' CPU offload, of whole models or layer by layer; needs a GPU.
        vae_slicing, vae_tiling, attention_slicing: less memory; pixels move.

    Raises:
        NotFoundError: weights that do not exist; the message says where to get and to put them.
    """
    check_size(height, width)
    check_image_guidance(image_guidance)
    sdxl_repo, vae_repo = str(sdxl_repo), str(vae_repo)
    cache_dir = None if cache_dir is None else Path(cache_dir)
    device = resolve_device(device)
    check_offload(offload, device)
    precision = resolve_dtype(dtype, device, on_gpu="float16")
    pipeline = _load_pipeline(model_path, sdxl_repo, vae_repo, dtype=precision, cache_dir=cache_dir)
    _move(pipeline, device, offload)
    saving = {"vae_slicing": vae_slicing, "vae_tiling": vae_tiling, "attention_slicing": attention_slicing}
    _save_memory(pipeline, **saving)
    sampling = {
        "height": height,
        "width": width,
        "steps": steps,
        "guidance": guidance,
        "image_guidance": image_guidance,
    }
    settings = _settings(shown_reference(pipeline.unet.config), dtype=precision, **sampling, **saving)
    return SDXL(pipeline, settings, identity=_identities(model_path, sdxl_repo, vae_repo, cache_dir=cache_dir))


def _save_memory(pipeline: Any, *, vae_slicing: bool, vae_tiling: bool, attention_slicing: bool) -> None:
    if vae_slicing:
        pipeline.vae.enable_slicing()
    if vae_tiling:
        pipeline.vae.enable_tiling()
    if attention_slicing:
        pipeline.enable_attention_slicing()


DEFAULTS = {name: argument.default for name, argument in inspect.signature(load).parameters.items()}


def _settings(shown: bool, *, dtype: torch.dtype, image_guidance: float, **options: Any) -> dict[str, Any]:
    """Return everything that moves pixels; older manifests lack the slicings, so they are left out where off."""
    named = ("height", "width", "steps", "guidance", "vae_tiling")
    settings = {name: options[name] for name in named} | {"dtype": str(dtype)}
    if shown:  # without guidance by the text, diffusers does not guide by the reference either
        settings["image_guidance"] = image_guidance if options["guidance"] > 1 else 1.0
    return settings | {name: True for name in ("vae_slicing", "attention_slicing") if options[name]}


def _load_pipeline(
    model_path: str | Path, sdxl_repo: str, vae_repo: str, *, dtype: torch.dtype, cache_dir: Path | None
) -> Any:
    """Load diffusers' pipeline without its text encoders."""
    quiet_diffusers()
    from diffusers import AutoencoderKL, UNet2DConditionModel

    scheduler = load_scheduler(sdxl_repo, cache_dir)
    files: dict[str, Any] = {"cache_dir": cache_dir, "base": sdxl_repo}
    unet = load_part(UNet2DConditionModel, need_unet(model_path), dtype, name="unet", **files)
    vae = load_part(AutoencoderKL, vae_repo, dtype, name="vae", **files)
    absent = dict.fromkeys(["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
    parts = {"unet": unet, "vae": vae, "scheduler": scheduler, "add_watermarker": False, **absent}
    pipeline = load_pipeline(pipeline_for(unet.config), sdxl_repo, dtype, cache_dir=cache_dir, parts=parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def shown_reference(config: Any) -> bool:
    """Tell whether a UNet of this configuration reads a reference's latents beside the noisy ones."""
    return bool(config.in_channels == 2 * config.out_channels)


def passes(shown: bool, guidance: float, image_guidance: float = 1.5) -> int:
    """Return the number of predictions of the UNet a step.

    With image guidance 1, the prediction without text and reference cancels out (Brooks et al., CVPR 2023, equation 3).
    """
    if guidance <= 1:
        return 1
    return 3 if shown and image_guidance != 1 else 2


def pipeline_for(config: Any) -> Any:
    """Return the pipeline class of diffusers for a UNet of this configuration."""
    from diffusers import StableDiffusionXLInstructPix2PixPipeline, StableDiffusionXLPipeline

    return StableDiffusionXLInstructPix2PixPipeline if shown_reference(config) else StableDiffusionXLPipeline


def quiet_diffusers() -> None:
    """Silence diffusers' log and progress bars; call it before diffusers imports anything else."""
    quiet_transformers()
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_lazily(cache: FeatureCache, **options: Any) -> Generator:
    """Return a stand-in with a generator's identity and settings, which loads it on first use.

    A hub id that is not in the hub's cache has no known revision, so such a generator is loaded now.
    """
    options = {**DEFAULTS, **options}
    check_size(options["height"], options["width"])
    check_image_guidance(options["image_guidance"])
    options["device"] = device = resolve_device(str(options["device"]))
    check_offload(options["offload"], device)
    sources = {name: options[name] for name in ("model_path", "sdxl_repo", "vae_repo", "cache_dir")}
    models = _identities(**sources, hasher=cache.file_digest)
    config = unet_config(options["model_path"], options["cache_dir"])
    if config is None or UNKNOWN in json.dumps(models):
        return load(**options)
    shown = shown_reference(SimpleNamespace(**config))
    settings = _settings(shown, **{**options, "dtype": resolve_dtype(options["dtype"], device, on_gpu="float16")})
    stand_in: Any = Deferred({"identity": models, "settings": settings, "shown": shown}, lambda: load(**options))
    return stand_in  # type: ignore[no-any-return]


def unet_config(model_path: str | Path, cache_dir: Path | None) -> dict[str, Any] | None:
    """Return the configuration of a UNet, without its weights; None where loading it has the better error."""
    quiet_diffusers()
    from diffusers import UNet2DConditionModel as Kind

    where = {"revision": hub.commit_of(model_path, cache_dir), "cache_dir": cache_dir, "local_files_only": True}
    try:
        local = os.path.isdir(model_path)
        source = part_folder(model_path, "unet") if local else model_path
        config = Kind.load_config(str(source), subfolder=None if local else "unet", **where)
        signature = inspect.signature(Kind.__init__).parameters
        return {name: config.get(name, signature[name].default) for name in ("in_channels", "out_channels")}
    except Exception:  # a folder of another layout, or a configuration that cannot be read
        return None


def _identities(
    model_path: str | Path, sdxl_repo: str, vae_repo: str, *, cache_dir: Path | None, hasher: Hasher = file_digest
) -> dict[str, dict[str, str]]:
    unet, vae = (_local(*part) for part in ((model_path, "unet"), (vae_repo, "vae")))
    scheduler = _local(sdxl_repo, "scheduler", "scheduler_config.json")  # all that is used of the base pipeline
    return {
        "unet": identity(unet, cache_dir, "unet/config.json", hasher=hasher),
        "vae": identity(vae, cache_dir, hasher=hasher),
        "scheduler": identity(scheduler, cache_dir, "model_index.json", hasher=hasher),
    }


def _local(source: str | Path, name: str, config: str = "config.json") -> str | Path:
    return part_folder(source, name, config) if os.path.isdir(source) else source


def check_size(height: int, width: int) -> None:
    """Raise UsageError for a size that SDXL's VAE cannot encode."""
    if height % 8 or width % 8 or min(height, width) < 8:
        raise UsageError(f"--height {height} --width {width}: SDXL's VAE wants multiples of 8, such as 512")


def check_image_guidance(scale: float) -> None:
    """Raise UsageError below 1, where diffusers generates without any guidance."""
    if not 1 <= scale < float("inf"):
        raise UsageError(f"--image-guidance-scale {scale:g}: 1 or more, such as 1.5")


def check_offload(offload: Offload, device: torch.device) -> None:
    """Raise UsageError on a CPU, from which there is nowhere to move weights."""
    if offload != "none" and device.type == "cpu":
        raise UsageError(
            f"--offload {offload} moves weights between a GPU and memory; this run is on the CPU: "
            f"leave it out, and --dtype float16 or bfloat16 halves the memory"
        )


def _move(pipeline: Any, device: torch.device, offload: Offload) -> None:
    if offload == "none":
        pipeline.to(device)
    elif offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
