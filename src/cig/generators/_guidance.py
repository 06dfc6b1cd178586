"""Guidance by the reference that costs two predictions of the UNet a step, not three."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def skip_third_pass(unet: Any) -> None:
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
