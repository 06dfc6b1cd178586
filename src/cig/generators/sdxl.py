"""The generator of the CIG release: SDXL with another UNet and a VAE that is safe in fp16.

Text encoders are not loaded, since the condition is a composed embedding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import ImageOps
from PIL.Image import Resampling

from cig.errors import InputError, MismatchError, NotFiniteError, NotFoundError, UsageError, reason
from cig.finite import need_finite
from cig.generators import SDXL_REPO, VAE_REPO, Offload, need_unet
from cig.io import hub
from cig.io.digests import Hasher, file_digest, identity
from cig.runtime import jsonable, quiet_transformers, resolve_device, resolve_dtype
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

    def __init__(
        self,
        pipeline: Any,
        *,
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
        if self.shown:  # without guidance by the text, diffusers does not guide by the reference either
            scale = image_guidance if guidance > 1 else 1.0
            self.sampling["image_guidance_scale"] = self.settings["image_guidance"] = scale
        self._finite: list[torch.Tensor] = []  # of each decoding, whether latents and pixels are: [2, B] bool
        pipeline.vae.decoder.register_forward_hook(self._note_finite)
        if self.shown and passes(self.shown, guidance, image_guidance) == 2:
            _skip_third_pass(pipeline.unet)

    def __call__(self, condition: ComposedEmbedding, seeds: Sequence[int]) -> list[Image]:
        """Make one picture a row, each by its own torch.Generator; the negative prompt of guidance is zeros."""
        self._check(condition)
        device, vae = self.pipeline._execution_device, self.pipeline.vae
        prompt = condition.prompt.to(device, self.dtype)
        pooled = condition.pooled2.to(device, self.dtype)
        # SDXL's VAE decodes in float32, for which diffusers casts it, and casts it back. If memory runs out in between,
        # the cast back is missed, and the smaller batch that is tried next would be encoded or decoded otherwise.
        vae_dtype = vae.dtype
        self._finite.clear()
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
        finally:
            if vae.dtype != vae_dtype:
                vae.to(dtype=vae_dtype)
        self._need_finite(condition.ids)
        images: list[Image] = out.images
        return images

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

    Raises:
        NotFoundError: weights that do not exist; the message says where to get and to put them.
    """
    check_size(height, width)
    check_image_guidance(image_guidance)
    sdxl_repo, vae_repo = str(sdxl_repo), str(vae_repo)
    cache_dir = None if cache_dir is None else Path(cache_dir)
    device = resolve_device(device)
    precision = resolve_dtype(dtype, device, on_gpu="float16")
    pipeline = _load_pipeline(model_path, sdxl_repo, vae_repo, dtype=precision, cache_dir=cache_dir)
    _move(pipeline, device, offload)
    if vae_slicing:
        pipeline.vae.enable_slicing()
    if vae_tiling:  # blends tiles of large pictures, so pixels depend on it, and it is among the settings
        pipeline.vae.enable_tiling()
    if attention_slicing:
        pipeline.enable_attention_slicing()
    models = _identities(model_path, sdxl_repo, vae_repo, cache_dir=cache_dir)
    guidances = {"guidance": guidance, "image_guidance": image_guidance}
    return SDXL(pipeline, height=height, width=width, steps=steps, **guidances, identity=models)


def _load_pipeline(
    model_path: str | Path, sdxl_repo: str, vae_repo: str, *, dtype: torch.dtype, cache_dir: Path | None
) -> Any:
    """Load diffusers' pipeline without its text encoders."""
    quiet_diffusers()
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet = load_part(UNet2DConditionModel, need_unet(model_path), dtype, cache_dir=cache_dir, subfolder="unet")
    vae = load_part(AutoencoderKL, vae_repo, dtype, cache_dir=cache_dir)
    absent = dict.fromkeys(["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
    parts = {"unet": unet, "vae": vae, "add_watermarker": False, **absent}
    pipeline = load_part(pipeline_for(unet.config), sdxl_repo, dtype, cache_dir=cache_dir, **parts)
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


def _skip_third_pass(unet: Any) -> None:
    """Compute two of the three predictions of a step, which are all that image guidance 1 needs."""
    # diffusers has no option for that. It passes (text and reference, reference, neither) as one batch, and at image
    # guidance 1 adds the last prediction and subtracts it again. So hooks cut the last third off the batch, and put a
    # copy of the second third in its place, which cancels out as well.

    def cut(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        latents, time = args
        count = len(latents) // 3 * 2
        added = {name: rows[:count] for name, rows in kwargs["added_cond_kwargs"].items()}
        words = kwargs["encoder_hidden_states"][:count]
        return (latents[:count], time), {**kwargs, "encoder_hidden_states": words, "added_cond_kwargs": added}

    def fill(_: Any, args: object, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (torch.cat([output[0], output[0].chunk(2)[1]]),)

    unet.register_forward_pre_hook(cut, with_kwargs=True)
    unet.register_forward_hook(fill)


def pipeline_for(config: Any) -> Any:
    """Return the pipeline class of diffusers for a UNet of this configuration."""
    from diffusers import StableDiffusionXLInstructPix2PixPipeline, StableDiffusionXLPipeline

    return StableDiffusionXLInstructPix2PixPipeline if shown_reference(config) else StableDiffusionXLPipeline


def load_round_trip(
    vae_repo: str, device: str | torch.device, side: int, *, cache_dir: Path | None = None
) -> Callable[[Image], Image]:
    """Return a function that resizes a picture's longer side to `side`, encodes it (the mean) and decodes it."""
    quiet_diffusers()
    from diffusers import AutoencoderKL
    from diffusers.image_processor import VaeImageProcessor

    device = resolve_device(str(device))
    dtype = resolve_dtype("auto", device, on_gpu="float16")
    vae = load_part(AutoencoderKL, vae_repo, dtype, cache_dir=cache_dir).to(device).eval()
    if vae.config.force_upcast:  # in float16 it may overflow, so SDXL's pipeline decodes in float32, too
        vae = vae.float()
    pixels = VaeImageProcessor(vae_scale_factor=8)

    def round_trip(image: Image) -> Image:
        scale = side / max(image.size)
        width, height = (max(8, round(length * scale / 8) * 8) for length in image.size)
        with torch.no_grad():
            batch = pixels.preprocess(image.convert("RGB"), height, width).to(device, vae.dtype)
            decoded = vae.decode(vae.encode(batch).latent_dist.mode()).sample
        need_finite(decoded, f"the VAE {vae_repo}", vae.dtype)
        picture: Image = pixels.postprocess(decoded.float(), output_type="pil")[0]
        return picture

    return round_trip


def quiet_diffusers() -> None:
    """Silence diffusers' log and progress bars; call it before diffusers imports anything else."""
    quiet_transformers()
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_lazily(cache: FeatureCache, **options: Any) -> Generator:
    """Load or, if the cache has the generator's description, return a stand-in that loads on first use."""
    options = {"sdxl_repo": SDXL_REPO, "vae_repo": VAE_REPO, "cache_dir": None, **options}
    check_size(options["height"], options["width"])
    check_image_guidance(options.get("image_guidance", 1))
    options["device"] = str(resolve_device(str(options["device"])))
    sources = {name: options[name] for name in ("model_path", "sdxl_repo", "vae_repo", "cache_dir")}
    generator: Generator = cache.load_lazily(
        {"sdxl": _identities(**sources, hasher=cache.file_digest), "options": jsonable(options)},
        lambda: load(**options),
        lambda loaded: {"identity": loaded.identity, "settings": loaded.settings, "shown": loaded.shown},
    )
    return generator


def _identities(
    model_path: str | Path, sdxl_repo: str, vae_repo: str, *, cache_dir: Path | None, hasher: Hasher = file_digest
) -> dict[str, dict[str, str]]:
    local, scheduler = Path(model_path) / "unet", Path(sdxl_repo) / "scheduler"
    return {
        "unet": identity(local if os.path.isdir(local) else model_path, cache_dir, "unet/config.json", hasher=hasher),
        "vae": identity(vae_repo, cache_dir, hasher=hasher),
        "scheduler": identity(
            scheduler if os.path.isdir(scheduler) else sdxl_repo, cache_dir, "model_index.json", hasher=hasher
        ),  # of the base pipeline only the scheduler is used
    }


def check_size(height: int, width: int) -> None:
    """Raise UsageError for a size that SDXL's VAE cannot encode."""
    if height % 8 or width % 8 or min(height, width) < 8:
        raise UsageError(f"--height {height} --width {width}: SDXL's VAE wants multiples of 8, such as 512")


def check_image_guidance(scale: float) -> None:
    """Raise UsageError below 1, where diffusers generates without any guidance."""
    if not 1 <= scale < float("inf"):
        raise UsageError(f"--image-guidance-scale {scale:g}: 1 or more, such as 1.5")


def load_part(
    kind: Any, source: str | Path, dtype: torch.dtype, *, cache_dir: Path | None = None, **options: Any
) -> Any:
    """Load a model of diffusers from a hub id or a folder; raises NotFoundError or InputError."""
    options |= {"dtype": dtype, "cache_dir": cache_dir, "use_safetensors": True}  # a pickle would run code
    try:
        return kind.from_pretrained(str(source), revision=hub.commit_of(source, cache_dir), **options)
    except Exception as error:
        if os.path.exists(source):
            raise InputError(f"{kind.__name__} cannot be loaded from {source}: {reason(error)}") from error
        raise NotFoundError(
            f"no {kind.__name__} {source}: it is not a folder, and the hub says: {reason(error)} "
            f"Put a copy on this machine and give its folder, or check --cache-dir."
        ) from error


def _move(pipeline: Any, device: torch.device, offload: Offload) -> None:
    if offload == "none":
        pipeline.to(device)
    elif device.type == "cpu":
        raise UsageError(f"--offload {offload} moves weights between a GPU and memory; this run is on the CPU")
    elif offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
