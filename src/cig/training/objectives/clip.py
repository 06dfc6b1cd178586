"""Train a CLIP, both towers and a tokenizer, on pictures and captions; a caption may be true of several pictures.

The loss is CLIP's (Radford et al., 2021, figure 3) with all true pairs of a batch as positives, which share the weight
of their row and column (UniCL, Yang et al., CVPR 2022, equation 3; SupCon, Khosla et al., 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cig.errors import NotFoundError, UsageError
from cig.io.digests import identity
from cig.io.files import make_folder, write_bytes
from cig.io.json_files import write_json
from cig.io.weight_files import write_weights
from cig.models._pretrained import need_all_weights, unloadable, weights_option
from cig.models.preprocessing import FILES
from cig.models.tokenizer import Tokenizer, load_tokenizer
from cig.runtime import quiet_transformers
from cig.training import processes
from cig.training.checkpoint import CHECKPOINT
from cig.training.data.decoding import facts_of_unreadable
from cig.training.data.pairs import PairSource
from cig.training.loop import train
from cig.training.model_card import write_card
from cig.training.objectives._tokenizer import train_tokenizer
from cig.training.plan import CPU, Plan
from cig.training.step import Step, need_whole

LARGEST_SCALE = 60.0  # of the logits, the inverse temperature
BESIDE = ("*token*.json", "vocab.json", "merges.txt", *FILES)  # files of a CLIP that training does not change
TOKENIZER_CAPTIONS = 60_000


@dataclass(frozen=True)
class ClipSize:
    """A CLIP's architecture by the parameters of transformers' CLIPConfig."""

    image: int = 64
    patch: int = 16
    width: int = 192
    layers: int = 4
    heads: int = 3
    text_width: int = 128
    text_layers: int = 4
    text_heads: int = 2
    projection: int = 128
    context: int = 32
    words: int = 4096


SIZES = {
    "tiny": ClipSize(width=32, layers=1, heads=2, text_width=32, text_layers=1, projection=16, words=600),
    "small": ClipSize(),
}


def train_clip(
    pairs: PairSource,
    size: ClipSize,
    plan: Plan,
    *,
    out: Path,
    inputs: Mapping[str, Any],
    device: torch.device = CPU,
    start: Path | None = None,
    layers: int | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Write a CLIP in transformers' layout to `out` at every checkpoint: fp16 weights, tokenizer, model card.

    Args:
        inputs: what identifies the data.
        start: the folder of a CLIP to start from, with its tokenizer, instead of `size`.
        layers: of each tower, more than `start` has; see `deepen`.
    """
    if start and start.resolve() == out.resolve():
        raise UsageError(f"--start {start} is --out, and would be written over; give another --out")
    make_folder(out)
    if start:
        tokenizer, model = _load_start(start)
        if layers:
            deepen(model, layers)
        inputs = {**inputs, "start": identity(start), **({"layers": layers} if layers else {})}
    else:
        tokenizer = _tokenizer(pairs, size, plan, out=out)
        torch.manual_seed(plan.seed)
        model, inputs = build(size, tokenizer), {**inputs, "size": asdict(size)}
    model.to(device)
    need_whole(plan, "CLIP's loss")
    most = max(math.log(LARGEST_SCALE), model.logit_scale.item())  # OpenAI's CLIPs start with 100

    def loss_of(step: Step) -> Tensor:
        with torch.no_grad():  # a clamp in the loss would have no gradient above the bound, and hold it there
            model.logit_scale.clamp_(max=most)
        batch = pairs.of(step, plan.batch)
        step.ids += batch.ids
        pooled = model.vision_model(pixel_values=batch.pixels.to(device)).pooler_output
        pictures = processes.gathered(model.visual_projection(pooled).float())
        texts = processes.gathered(text_features(model, tokenizer, batch.captions).float())
        positives, scale = batch.positives.to(device), model.logit_scale.exp()
        return contrastive(texts, pictures, positives, scale=scale) / processes.world()

    def export(facts: Mapping[str, Any]) -> None:
        for path in sorted(path for name in BESIDE for path in start.glob(name)) if start else ():
            write_bytes(out / path.name, path.read_bytes())
        save(model, out)
        write_card(out, "a CLIP for composed image retrieval", {**facts, **facts_of_unreadable(out)})

    groups = _groups(model)
    train(model, loss_of, plan, out=out, export=export, inputs=inputs, groups=groups, tensorboard=tensorboard)


def contrastive(texts: Tensor, pictures: Tensor, positives: Tensor, *, scale: Tensor | float) -> Tensor:
    """Return the mean cross entropy of rows and columns.

    Args:
        texts, pictures: [B, d], not normalised.
        positives: [B, B] bool, true at least on the diagonal; the positives of a row share its weight evenly.
    """
    logits = scale * functional.normalize(texts, dim=-1) @ functional.normalize(pictures, dim=-1).T
    targets = positives.to(logits.dtype)
    rows = -(targets / targets.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    columns = -(targets / targets.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2


def text_features(model: Any, tokenizer: Tokenizer, captions: Sequence[str]) -> Tensor:
    """Return the projected state at the end of each caption, [B, p]."""
    # Captions differ much in length. In two batches, the shorter five eighths and the longer rest, less is padding.
    rows = tokenizer(captions)
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    cut = len(rows) * 5 // 8
    parts = [part for part in (by_length[:cut], by_length[cut:]) if part]
    features = torch.cat([_text_features(model, tokenizer, [rows[i] for i in part]) for part in parts])
    return features[torch.tensor(by_length, device=features.device).argsort()]


def _text_features(model: Any, tokenizer: Tokenizer, rows: Sequence[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    device = model.logit_scale.device
    ids = torch.tensor([row + [tokenizer.end] * (longest - len(row)) for row in rows], device=device)
    states = model.text_model(input_ids=ids).last_hidden_state
    ends = torch.tensor([len(row) - 1 for row in rows], device=device)
    features: Tensor = model.text_projection(states[torch.arange(len(rows), device=device), ends])
    return features


def build(size: ClipSize, tokenizer: Tokenizer) -> Any:
    """Build transformers' CLIPModel with random weights."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": len(tokenizer.tokenizer),
        "hidden_size": size.text_width,
        "intermediate_size": 4 * size.text_width,
        "num_hidden_layers": size.text_layers,
        "num_attention_heads": size.text_heads,
        "max_position_embeddings": size.context,
        "bos_token_id": tokenizer.tokenizer.bos_token_id,
        "eos_token_id": tokenizer.end,
        "pad_token_id": tokenizer.pad,
    }
    vision = {
        "image_size": size.image,
        "patch_size": size.patch,
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
    }
    shared = {"projection_dim": size.projection, "hidden_act": "gelu"}
    towers = {"text_config": {**text, **shared}, "vision_config": {**vision, **shared}}
    return CLIPModel(CLIPConfig(**towers, projection_dim=size.projection))


def deepen(model: Any, layers: int) -> None:
    """Give each tower more layers, which change no output until they are trained.

    A new layer is a copy of the one before it, with zeros for its two output projections, so that it adds nothing to
    its input (Net2Net, Chen et al., ICLR 2016; zero outputs as in Fixup, Zhang et al., ICLR 2019).

    Raises:
        UsageError: a tower has that many layers already.
    """
    for tower in (model.vision_model, model.text_model):
        old = tower.encoder.layers
        if layers <= len(old):
            raise UsageError(f"a tower has {len(old)} layers already; --layers takes more than that")
        sources = [number * len(old) // layers for number in range(layers)]
        grown = nn.ModuleList(deepcopy(old[source]) for source in sources)
        for previous, source, layer in zip(sources, sources[1:], list(grown)[1:], strict=False):
            if source == previous:
                for output in (layer.self_attn.out_proj, layer.mlp.fc2):
                    nn.init.zeros_(output.weight)
                    nn.init.zeros_(output.bias)
        tower.encoder.layers = grown
        tower.config.num_hidden_layers = layers


def save(model: Any, out: Path) -> None:
    """Write the CLIP in transformers' layout, fp16."""
    write_weights(out / "model.safetensors", model.state_dict(), {"format": "pt"})
    config = {**model.config.to_dict(), "dtype": "float16", "architectures": ["CLIPModel"]}
    config.pop("_name_or_path", None)  # the folder of `start`, which the card names
    write_json(out / "config.json", config, indent=2)


def pixels_of(size: ClipSize, start: Path | None = None) -> int:
    """Return the side of the pictures that a CLIP of this size, or the CLIP of `start`, reads."""
    from transformers import CLIPConfig

    if not start:
        return size.image
    width: int = _loaded(CLIPConfig, start).vision_config.image_size
    return width


def _loaded(kind: Any, start: Path, **options: Any) -> Any:
    """Load a configuration or a model of transformers; raises NotFoundError or InputError."""
    if not (start / "config.json").is_file():
        raise NotFoundError(f"{start} has no config.json; give the folder of a CLIP in transformers' layout")
    quiet_transformers()
    try:
        return kind.from_pretrained(start, **options)
    except Exception as error:  # on a damaged file, the library may raise anything
        raise unloadable("CLIP", start, error) from error


def _load_start(start: Path) -> tuple[Tokenizer, Any]:
    """Load the tokenizer and the model of a CLIP to start from."""
    from transformers import CLIPModel

    where = {"output_loading_info": True, "ignore_mismatched_sizes": True, **weights_option(start, "model", "CLIP")}
    model, info = _loaded(CLIPModel, start, dtype=torch.float32, **where)
    need_all_weights(info, str(start), "CLIP", parts=("",))
    return load_tokenizer(start, model.config.text_config.max_position_embeddings), model


def _tokenizer(pairs: PairSource, size: ClipSize, plan: Plan, *, out: Path) -> Tokenizer:
    """Train a tokenizer on captions into `out`, unless a checkpoint there is continued, and load it."""
    # One process trains it for all. It is saved aside first, because transformers does not write files atomically, and
    # its file names are known only then.
    if processes.rank() == 0 and not (out / CHECKPOINT).exists():
        rng = Random(f"{plan.seed}/tokenizer")
        tokenizer = train_tokenizer(pairs.captions(TOKENIZER_CAPTIONS, rng), size.words, size.context)
        with TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            for path in sorted(Path(folder).iterdir()):
                write_bytes(out / path.name, path.read_bytes())
    processes.wait()
    return load_tokenizer(out, size.context)


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return parameter groups: matrices decay, other weights do not, and the temperature learns eight times as fast."""
    named = dict(model.named_parameters())
    scale = named.pop("logit_scale")
    return [
        {"params": [weight for weight in named.values() if weight.ndim > 1]},
        {"params": [weight for weight in named.values() if weight.ndim <= 1], "decays": False},
        {"params": [scale], "decays": False, "speed": 8.0},
    ]
