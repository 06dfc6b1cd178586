"""Textual inversion: a picture's feature becomes a pseudo-word, a word that a prompt can hold.

Used twice: to condition the generator (two CLIPs, two phis) and to search (one of each).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cig.errors import InputError, MismatchError, UsageError
from cig.io.digests import identity
from cig.io.images import Preprocess, Preprocessing
from cig.io.tensors import is_plain, read_tensors
from cig.models.clip import Clip, Placement
from cig.runtime import jsonable
from cig.types import ComposedEmbedding

if TYPE_CHECKING:
    from torch import Tensor

    from cig.io.feature_cache import FeatureCache

PROMPT = "a photo of $ that {caption}"
BARE_PROMPT = "a photo of $"  # of a query without a caption


class Phi(nn.Module):
    """The textual-inversion network of SEARLE and LinCIR: three linear layers with GELU and dropout between.

    Args:
        input_dim: width of the CLIP's projected picture features.
        hidden_dim: 4 * input_dim in all published checkpoints.
        output_dim: width of the text tower's token embedding.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(input_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, output_dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Picture features [B, input_dim], not normalised -> pseudo-words [B, output_dim]."""
        words: Tensor = self.layers(features)
        return words


class Im2Text(nn.Module):
    """Pic2Word's textual-inversion network (Saito et al., CVPR 2023): as Phi, but with ReLU, after the dropout."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        widths = (input_dim, hidden_dim)
        blocks = (nn.Sequential(nn.Linear(width, hidden_dim), nn.Dropout(dropout), nn.ReLU()) for width in widths)
        self.layers = nn.Sequential(*blocks)
        self.fc_out = nn.Linear(hidden_dim, output_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Picture features [B, input_dim], not normalised -> pseudo-words [B, output_dim]."""
        words: Tensor = self.fc_out(self.layers(features))
        return words


@dataclass(frozen=True)
class Checkpoint:
    """How a kind of network is stored: three linear layers under a key, their names after a prefix."""

    network: type[Phi] | type[Im2Text]
    key: str
    layers: tuple[str, str, str]
    prefix: str = ""

    @property
    def names(self) -> list[str]:
        return [f"{layer}.{kind}" for layer in self.layers for kind in ("weight", "bias")]


PHI = Checkpoint(Phi, "Phi", ("layers.0", "layers.3", "layers.6"))
IM2TEXT = Checkpoint(Im2Text, "state_dict_img2text", ("layers.0.0", "layers.1.0", "fc_out"), "module.")
KINDS = {"phi": PHI, "im2text": IM2TEXT}


@dataclass(frozen=True)
class Inverter:
    """A phi that fits its CLIP."""

    clip: Clip
    phi: Phi | Im2Text

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """[B, p] -> [B, h] pseudo-words, float32 on the CPU."""
        weight = next(self.phi.parameters())
        return self.phi(features.to(weight.device, weight.dtype)).float().cpu()


def load_phi(path: str | Path, clip: Clip, kind: Checkpoint = PHI) -> Inverter:
    """A checkpoint with three linear layers, such as `layers.{0,3,6}.{weight,bias}` under the key `Phi`.

    A safetensors file has the layers themselves: it knows no keys above.

    Sizes are read from the weights.

    Raises:
        InputError: not such a checkpoint, or values that are not finite.
        MismatchError: it does not fit the CLIP; both widths are named.
    """
    weights, (width, hidden, out) = read_phi(Path(path), kind)
    need_fit(path, (width, out), clip.identity["source"], (clip.feature_width, clip.token_width))
    phi = kind.network(width, hidden, out, dropout=0)
    phi.load_state_dict(weights)
    return Inverter(clip, phi.to(clip.device, clip.dtype).eval().requires_grad_(False))


def kind_of(path: Path, network: str = "") -> Checkpoint:
    """The kind of that name; without one, told by what a file holds (PHI, whose error says more, where nothing is)."""
    if network:
        return KINDS[network]
    mark = IM2TEXT.names[0] if path.suffix == ".safetensors" else IM2TEXT.key
    return IM2TEXT if mark in read_tensors(path) else PHI


def read_phi(path: Path, kind: Checkpoint = PHI) -> tuple[dict[str, Tensor], tuple[int, int, int]]:
    """(weights by the network's own names, (input, hidden, output)); raises InputError as load_phi does."""
    weights = _stored(path, kind)
    hidden, width, out = _phi_widths({name: tuple(own.shape) for name, own in weights.items()}, kind, path)
    if not all(torch.isfinite(own).all() for own in weights.values()):
        raise InputError(f"{path}: phi has weights that are not finite")
    return weights, (width, hidden, out)


def need_fit(path: str | Path, phi: tuple[int, int], clip: str, widths: tuple[int, int]) -> None:
    """Raises MismatchError unless a phi's (input, output) are a CLIP's widths of features and words."""
    if phi != widths:
        raise MismatchError(
            f"phi {path} turns features of width {phi[0]} into words of width {phi[1]}, but the CLIP {clip} has "
            f"features of width {widths[0]} and words of width {widths[1]}; --clip and --phi come in pairs"
        )


def _stored(path: Path, kind: Checkpoint) -> dict[str, Tensor]:
    """Raises InputError unless all weights are there; safetensors have them bare, without key or prefix."""
    stored = read_tensors(path)
    bare = path.suffix == ".safetensors"
    content, prefix = (stored, "") if bare else (stored.get(kind.key), kind.prefix)
    weights = {name: content.get(prefix + name) for name in kind.names} if isinstance(content, dict) else {}
    if not weights or not all(map(is_plain, weights.values())):
        wanted = ", ".join(prefix + name for name in kind.names)
        place = "" if bare else f'a key "{kind.key}" with '
        raise InputError(f"{path}: not a phi checkpoint: expected {place}floats in {wanted}")
    return weights


def _phi_widths(shapes: Mapping[str, tuple[int, ...]], kind: Checkpoint, path: str | Path) -> tuple[int, int, int]:
    """(hidden, input, output), checked before a network of that size is made."""
    first, middle, last = kind.layers
    hidden, width, out = shapes[f"{first}.bias"], shapes[f"{first}.weight"][1:], shapes[f"{last}.bias"]
    chain = {first: hidden + width, middle: hidden + hidden, last: out + hidden}
    for layer, shape in chain.items():
        if len(shape) != 2 or (shapes[f"{layer}.weight"], shapes[f"{layer}.bias"]) != (shape, shape[:1]):
            raise InputError(f"{path}: the shapes of phi's layers do not follow from each other: {dict(shapes)}")
    return hidden[0], width[0], out[0]


def prompt(caption: str, template: str = PROMPT) -> str:
    return template.replace("{caption}", caption)


def join_captions(captions: Sequence[str]) -> tuple[str, ...]:
    """How several captions become one: `c1 and c2` and, reversed, `c2 and c1`; one is left as it is, none is none."""
    if len(captions) < 2:
        return tuple(captions)
    stripped = [caption.strip(".?, ") for caption in captions]
    return " and ".join(stripped), " and ".join(reversed(stripped))


def prompts(captions: Sequence[str], template: str = PROMPT, bare: str | None = BARE_PROMPT) -> tuple[str, ...]:
    """The prompt of each order of a query's captions; `bare` where it has none.

    Raises:
        UsageError: there is no caption and no bare prompt.
    """
    made = tuple(prompt(text, template) for text in join_captions(captions))
    if not made and bare is None:
        raise UsageError("a query without a caption leaves nothing to search with; ask a method that looks at pictures")
    return made or (bare or "",)


class Composer:
    """Reference + caption -> what conditions the generator, by two CLIPs and two phis (CIG, stage 1)."""

    def __init__(self, first: Inverter, second: Inverter, preprocessing: Preprocessing = "clip") -> None:
        self.first, self.second = first, second
        self.identity: Mapping[str, Any] = {"clip": first.clip.identity, "clip2": second.clip.identity}
        self.settings: Mapping[str, Any] = {"preprocessing": preprocessing, "dtype": str(first.clip.dtype)}
        if first.clip.tokenizer.context != second.clip.tokenizer.context:
            raise MismatchError(
                f"{first.clip.identity['source']} reads {first.clip.tokenizer.context} tokens and "
                f"{second.clip.identity['source']} {second.clip.tokenizer.context}; the generator needs both alike"
            )
        self.preprocesses = [
            Preprocess(clip.size, pad=preprocessing == "targetpad", rgb_first=preprocessing == "clip")
            for clip in (first.clip, second.clip)
        ]

    def embed_images(self, pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Pixels for each tower -> features ([B, p1], [B, p2])."""
        return self.first.clip.embed_images(pixels[0]), self.second.clip.embed_images(pixels[-1])

    def compose(
        self, ids: Sequence[str], features: tuple[Tensor, Tensor], captions: Sequence[Sequence[str]]
    ) -> ComposedEmbedding:
        """Features ([B, p1], [B, p2]) and the captions of B queries -> their composed embeddings."""
        texts = [prompts(own)[0] for own in captions]
        states = self.first.clip.text_states(texts, self.first(features[0]))
        states2 = self.second.clip.text_states(texts, self.second(features[1]))
        return ComposedEmbedding(
            ids=tuple(ids),
            conditioning=states.hidden,
            conditioning2=states2.hidden,
            pooled2=states2.pooled,
            last=states.last,
        )


def load_composer(
    clip: str,
    clip2: str,
    phi: str | Path,
    phi2: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    cache_dir: Path | None = None,
    preprocessing: Preprocessing = "clip",
) -> Composer:
    """The published pair is openai/clip-vit-large-patch14 and Geonmo/CLIP-Giga-config-fixed, in float32.

    Args:
        phi, phi2: of either kind, SEARLE's and LinCIR's or Pic2Word's.
    """
    from cig.models.clip import load_clip

    device = torch.device(device)
    first = load_phi(phi, load_clip(clip, device, dtype, cache_dir), kind_of(Path(phi)))
    second = load_phi(phi2, load_clip(clip2, device, dtype, cache_dir), kind_of(Path(phi2)))
    composer = Composer(first, second, preprocessing)
    composer.identity = {**composer.identity, "phi": identity(phi), "phi2": identity(phi2)}
    return composer


def recall_composer(
    clip: str, clip2: str, phi: Path, phi2: Path, cache: FeatureCache, cache_dir: Path | None = None, **options: Any
) -> Composer:
    """load_composer, but where its files were described before, they are loaded only when they are needed."""
    clips = [identity(name, cache_dir, hashed=cache.file_digest) for name in (clip, clip2)]
    phis = [identity(path, hashed=cache.file_digest) for path in (phi, phi2)]
    composer: Composer = cache.recall(
        {"composer": clips + phis, "options": jsonable(options)},
        lambda: load_composer(clip, clip2, phi, phi2, cache_dir=cache_dir, **options),
        lambda made: {"identity": made.identity, "settings": made.settings},
    )
    return composer


class WordMethod:
    """Search by T(prompt with a pseudo-word), however the word was found."""

    uses_picture = True

    def __init__(
        self, name: str, clip: Clip, preprocess: Preprocess, placement: Placement, identity: Mapping[str, Any]
    ) -> None:
        self.name, self.clip, self.preprocess = name, clip, preprocess
        self.placement, self.identity = placement, identity
        self.picture_model = clip.identity

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.clip.embed_images(pixels)

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Raises UsageError for a query without a caption."""
        return over_orders([prompts(own, "{caption}", None) for own in captions], self.clip.embed_texts)

    def embed_words(self, words: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Pseudo-words [B, h] and captions -> [B, d] unit rows: `a photo of $ that {caption}`, or `a photo of $`."""

        def embed(texts: Sequence[str], own: Tensor) -> Tensor:
            return self.clip.embed_texts(texts, own, self.placement)

        return over_orders([prompts(own) for own in captions], embed, words)


class InversionMethod(WordMethod):
    """The word is phi(picture): SEARLE, LinCIR, Pic2Word, and whatever shares their form."""

    def __init__(
        self,
        name: str,
        inverter: Inverter,
        preprocess: Preprocess,
        placement: Placement,
        identity: Mapping[str, Any],
    ) -> None:
        super().__init__(name, inverter.clip, preprocess, placement, identity)
        self.inverter = inverter

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        return self.embed_words(self.inverter(image_features), captions)


def over_orders(texts: Sequence[tuple[str, ...]], embed: Callable[..., Tensor], words: Tensor | None = None) -> Tensor:
    """[B, d] unit rows: every order of a query's captions is encoded, unit features are averaged and normalised.

    Args:
        texts: for each query, its texts in every order.
        embed: (texts) -> [N, d], or (texts, the words of their queries).
        words: [B, h], or None.
    """
    owner = [i for i, own in enumerate(texts) for _ in own]
    flat = [text for own in texts for text in own]
    features = nn.functional.normalize(embed(flat) if words is None else embed(flat, words[owner]), dim=-1)
    total = torch.zeros(len(texts), features.shape[-1]).index_add_(0, torch.tensor(owner, dtype=torch.long), features)
    return nn.functional.normalize(total, dim=-1)
