"""A causal language model that continues a prompt many times; its draws do not depend on the batch size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from cig.errors import InputError, UsageError
from cig.io.digests import identity
from cig.models._pretrained import load_with_tokenizer, model_folder
from cig.runtime import batches, quiet_transformers, seed_of


@dataclass(frozen=True)
class Sampling:
    """The number of continuations and how they are sampled; the defaults are SEARLE's.

    Attributes:
        count: continuations of a prompt.
        top_k: draw from so many of the likeliest tokens; 50 was the library's default when SEARLE was released.
        max_length: tokens, those of the prompt included.
        no_repeat: no sequence of so many tokens repeats in a continuation, prompt included; 0: any may.
    """

    count: int = 256
    temperature: float = 0.5
    top_k: int = 50
    max_length: int = 35
    no_repeat: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UsageError for values out of range."""
        if min(self.count, self.top_k, self.max_length) < 1 or self.no_repeat < 0:
            raise UsageError("--count, --top-k and --max-length are at least 1, --no-repeat at least 0")
        if not 0 < self.temperature < float("inf"):
            raise UsageError(f"--temperature {self.temperature}: more than 0")

    def draws(self, prompt: str) -> Tensor:
        """Return random numbers [count, max_length] in (0, 1], from the seed and the prompt alone."""
        generator = torch.Generator().manual_seed(
            seed_of("per-query", self.seed, benchmark="phrases", query=prompt, attempt=0)
        )
        return 1 - torch.rand(self.count, self.max_length, generator=generator)


class InverseTransformSampler(LogitsProcessor):
    """A sampler that leaves one token a row, selected by numbers drawn beforehand; greedy decoding then takes it.

    The library draws from one generator for the whole batch, so a continuation would depend on its neighbours. Here
    each position of each continuation has its number, whatever the batch and wherever a rerun starts.
    """

    def __init__(self, draws: Tensor, sampling: Sampling) -> None:
        """`draws`: [B, max_length] in (0, 1]."""
        self.draws, self.sampling = draws, sampling

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, length so far], [B, V] logits -> [B, V]: 0 at the token, else -inf.

        The cumulative probabilities are in the order of token ids, not of likelihood: rounding that swaps two almost
        equal logits then moves a border a little, and the draw selects the same token.
        """
        draw = self.draws[:, input_ids.shape[1] : input_ids.shape[1] + 1].to(scores.device)
        likeliest = scores.topk(min(self.sampling.top_k, scores.shape[1])).indices.sort().values
        logits = scores.gather(1, likeliest).float() / self.sampling.temperature
        below = logits.softmax(1).cumsum(1)
        if below.isnan().any():
            raise InputError("the language model's numbers are not finite; try --dtype float32")
        drawn = torch.searchsorted(below, draw * below[:, -1:])
        return torch.full_like(scores, -torch.inf).scatter(1, likeliest.gather(1, drawn), 0.0)


class LanguageModel:
    """A causal language model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, identity: dict[str, Any]) -> None:
        self.model, self.tokenizer, self.identity = model, tokenizer, identity

    def check(self, sampling: Sampling) -> None:
        """Raise UsageError if phrases may be longer than the model takes."""
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most and sampling.max_length > most:
            raise UsageError(f"--max-length {sampling.max_length}: {self.identity['source']} takes {most} tokens")

    @torch.no_grad()
    def continued(self, prompt: str, sampling: Sampling, batch_size: int = 256) -> list[str]:
        """Return the prompt with each of its continuations; none if the prompt is too long for one."""
        from transformers import GenerationConfig

        ids = self.tokenizer(prompt, return_tensors="pt")["input_ids"].to(self.model.device)
        if ids.shape[1] >= sampling.max_length:
            return []
        end = self.tokenizer.eos_token_id
        greedy = GenerationConfig(
            max_length=sampling.max_length,
            no_repeat_ngram_size=sampling.no_repeat,
            do_sample=False,
            num_beams=1,
            eos_token_id=end,
            pad_token_id=end,
        )
        phrases: list[str] = []
        for draws in batches(sampling.draws(prompt), batch_size):
            rows = ids.expand(len(draws), -1)
            tokens = self.model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                generation_config=greedy,
                logits_processor=[InverseTransformSampler(draws, sampling)],
            )
            phrases += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return phrases

    @torch.no_grad()
    def answered(self, prompt: str, most: int) -> str:
        """Return what greedily follows a prompt, in the model's chat template if it has one."""
        from transformers import GenerationConfig

        if self.tokenizer.chat_template:
            turn = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            inputs = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        else:
            inputs = self.tokenizer(f"{prompt}\n", return_tensors="pt")
        ids, end = inputs["input_ids"].to(self.model.device), self.tokenizer.eos_token_id
        greedy = GenerationConfig(max_new_tokens=most, do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=end)
        tokens = self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
        answer: str = self.tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True)
        return answer


def load_language_model(
    source: str, device: torch.device, dtype: torch.dtype, *, cache_dir: Path | None = None
) -> LanguageModel:
    """Load a causal language model of transformers by hub id, folder, or a file .gguf; weights from safetensors alone.

    Raises:
        UsageError: a file .gguf needs a library that is not installed.
        NotFoundError: it is neither a folder nor a hub id that can be reached.
        InputError: the files cannot be read, are of another kind of model, or lack weights.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    quiet_transformers()
    files: dict[str, Any] = {}
    if os.path.isfile(source):
        folder, files = _gguf(Path(source))
    else:
        folder = str(model_folder(source, cache_dir, "language model", pickled=""))
    options = {} if files else {"use_safetensors": True}
    model, tokenizer = load_with_tokenizer(
        AutoModelForCausalLM, folder, "language model", files=files, dtype=dtype, **options
    )
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer in {source} names no end token (eos_token)")
    model.generation_config = GenerationConfig()  # its own may penalise or truncate, beside our settings
    return LanguageModel(model.to(device), tokenizer, {**identity(source, cache_dir), "dtype": str(dtype)})


def _gguf(path: Path) -> tuple[str, dict[str, str]]:
    """Return the folder and options by which transformers loads a file of llama.cpp, weights and tokenizer."""
    if path.suffix.lower() != ".gguf":
        raise UsageError(f"--model {path} is a file: give the folder of a model with safetensors, or a file .gguf")
    from transformers.utils.import_utils import is_gguf_available

    if not is_gguf_available():
        raise UsageError(f"--model {path} needs a library that reads this form: pip install gguf")
    return str(path.parent), {"gguf_file": path.name}
