"""SDXL's UNet with random weights, for benchmarks/training.py: steps on a GPU, or what they would take, counted."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from cig.machine import measured
from cig.pipelines.plan import Alive
from cig.training.checkpoint import new_state, trainable
from cig.training.objectives._diffusion import DiffusionBatch, ddpm, denoising_loss
from cig.training.objectives._lora import Lora, add_adapter
from cig.training.plan import Plan

WARM, TIMED = 3, 10  # steps of SDXL
RANK = 16
SDXL = {  # stabilityai/stable-diffusion-xl-base-1.0, unet/config.json
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
CASES = [(kind, side, saving) for kind in ("lora", "full") for side in (512, 1024) for saving in (False, True)]


def unet_of(kind: str, device: torch.device) -> Any:
    """Random weights: float32 where all are trained; bf16, with an adapter in float32, where they are frozen."""
    from diffusers import UNet2DConditionModel

    with device:
        unet = UNet2DConditionModel(**SDXL)
    return add_adapter(unet.to(torch.bfloat16), Lora(RANK, RANK)) if kind == "lora" else unet


def batch_of(side: int, device: torch.device) -> DiffusionBatch:
    """One picture."""
    with device:
        latents = torch.randn(1, 4, side // 8, side // 8)
        condition = torch.randn(1, 77, 2048), torch.randn(1, 1280)
        framing = torch.tensor([[side, side, 0.0, 0.0, side, side]])
        return DiffusionBatch(
            latents, torch.randn_like(latents), torch.zeros(1, dtype=torch.long), condition=condition, framing=framing
        )


def sdxl(kind: str, side: int, saving: bool) -> dict[str, Any]:
    """Steps of one picture on the GPU, the frozen CLIPs and the VAE not there: forward, backward, AdamW."""
    device = torch.device("cuda")
    unet = unet_of(kind, device)
    if saving:
        unet.enable_gradient_checkpointing()
    state, batch, noising = new_state(unet, Plan(1)), batch_of(side, device), ddpm("epsilon")

    def step() -> None:
        state.optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = denoising_loss(unet, noising, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([own for _, own in trainable(unet)], 1.0)
        state.optimizer.step()

    for _ in range(WARM):
        step()
    with measured() as cost:
        for _ in range(TIMED):
            step()
    return {
        **named(kind, side, saving),
        "s/step": cost.seconds / TIMED,
        "peak GB": cost.gigabytes,
        "device": cost.device,
    }


def named(kind: str, side: int, saving: bool) -> dict[str, Any]:
    return {"UNet": f"LoRA, rank {RANK}" if kind == "lora" else "full", "pixels": side, "checkpointing": yes(saving)}


def yes(value: bool) -> str:
    return "yes" if value else "no"


def counted(kind: str, side: int, saving: bool) -> dict[str, Any]:
    """Of one picture, without weights (torch's meta device): GB of what is kept, and of activations at their most.

    Activations are counted in bf16 throughout, by attention that keeps no matrix of scores. What autocast keeps in
    float32 (outputs of norms) and what the allocator leaves unused come on top.
    """
    unet = unet_of(kind, torch.device("meta"))
    if kind == "full":
        unet.to(torch.bfloat16)
    if saving:
        unet.enable_gradient_checkpointing()
    learnt, every = sum(own.numel() for _, own in trainable(unet)), sum(own.numel() for own in unet.parameters())
    for _, own in trainable(unet):
        own.register_post_accumulate_grad_hook(forget_gradient)
    activations = alive_at_most(unet, side)
    frozen, copies = 2 * (every - learnt), 2 * learnt  # autocast keeps a bf16 copy of each weight that is trained
    kept = frozen + copies + (4 + 4 + 8) * learnt  # weights, gradients, Adam's two moments
    return {
        **named(kind, side, saving),
        "trained": f"{learnt / 1e6:,.1f} M",
        "weights, gradients, AdamW GB": kept / 1e9,
        "mean of weights GB": 4 * learnt / 1e9,
        "activations a picture GB": activations / 1e9,
    }


def forget_gradient(parameter: torch.Tensor) -> None:
    """It is counted apart."""
    parameter.grad = None


def alive_at_most(unet: Any, side: int) -> int:
    """Bytes of activations, forward and backward."""
    before = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = flash  # type: ignore[assignment]
    try:
        with torch.device("meta"), Alive(unet) as alive:
            denoising_on_meta(unet, side).backward()  # type: ignore[no-untyped-call]
    finally:
        functional.scaled_dot_product_attention = before
    return alive.peak


def denoising_on_meta(unet: Any, side: int) -> torch.Tensor:
    half = {"dtype": torch.bfloat16}
    known = {"text_embeds": torch.empty(1, 1280, **half), "time_ids": torch.empty(1, 6)}
    latents, prompt = torch.empty(1, 4, side // 8, side // 8, **half), torch.empty(1, 77, 2048, **half)
    said: torch.Tensor = unet(latents, torch.empty(1), prompt, added_cond_kwargs=known).sample
    return said.float().square().mean()


def flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
    """On the meta device torch would count a matrix of scores, which no GPU's kernel keeps."""
    attended: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
    return attended
