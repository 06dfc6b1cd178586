"""BASIC (Psomas et al., i-CIR, NeurIPS 2025): image and text similarities, centred, projected, scaled and multiplied.

Every part has a switch. With all of them off, the score is that of `product`.

- centre: subtract the gallery's mean from pictures, and the mean of a corpus of subjects from texts;
- components: project the picture query on the first eigenvectors, of positive eigenvalue, of
  (1 - alpha) S+ - alpha S-, where S+ and S- are the scatter matrices of centred texts: of subjects, which a query
  should keep, and of styles, which it should not;
- normalise: shift each similarity by its least value, and divide it by that value's size;
- harris: subtract harris * (s_image + s_text)^2, which asks that both are high;
- expand: replace the picture query by a weighted mean of itself and of its nearest pictures;
- context: average the text over "{subject} {text}" for so many subjects.

The paper takes the least values from synthetic pairs and the image mean from a large set of pictures; here both come
from the gallery and the corpora, which are of our own making (assets/corpora).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cig.errors import InputError, UsageError
from cig.io.digests import digest_of
from cig.io.files import read_bytes
from cig.methods import Option, Source
from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import unit
from cig.methods._pairs import PairedFeatures, halves, lacks

OPTIONS = {
    "subjects": Option("a text file, a subject a line; by default ours", is_model=True),
    "styles": Option("a text file, a style a line; by default ours", is_model=True),
    "components": Option("eigenvectors of the projection, 250; 0: no projection"),
    "alpha": Option("the share of styles in the projection, 0.2"),
    "harris": Option("the weight of the Harris term, 0.1; 0: none"),
    "expand": Option("nearest pictures of the query expansion; 0, the default, is none, 25 the paper's"),
    "context": Option("subjects that the text is averaged over, 20; 0: the text alone"),
    "centre": Option("yes or no"),
    "normalise": Option("yes or no"),
}
RIDGE = 1e-5  # added to the contrastive matrix's diagonal
SHARPNESS = 0.1  # of the query expansion's softmax


@dataclass(frozen=True)
class Parts:
    """Which parts of the method are on, and how far; the defaults are the paper's, without query expansion."""

    components: int = 250
    alpha: float = 0.2
    harris: float = 0.1
    expand: int = 0
    context: int = 20
    centre: bool = True
    normalise: bool = True

    @classmethod
    def of(cls, options: dict[str, str]) -> Parts:
        """Read options as text; raise UsageError for one that cannot be used."""
        return cls(
            **{name: _read(name, options[name], value) for name, value in vars(cls()).items() if name in options}
        )


class Basic(PairedFeatures):
    family = "basic"

    def __init__(self, variant: str, source: Source) -> None:
        self.parts = Parts.of(dict(source.options))
        self._subjects, self._styles = (_corpus(name, source.options.get(name)) for name in ("subjects", "styles"))
        super().__init__(variant, source)
        self.identity = {**self.identity, **asdict(self.parts), "corpora": digest_of([self._subjects, self._styles])}

    def embed_texts(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Return unit text features [B, d], averaged over "{subject} {text}" where the context is on."""
        subjects = self._subjects[: self.parts.context]
        if not subjects:
            return super().embed_texts(captions)
        rows = [tuple(f"{subject} {text}" for text in texts) for texts in captions for subject in subjects]
        features = super().embed_texts(rows)
        return unit(features.view(len(captions), len(subjects), -1).mean(dim=1))

    @cached_property
    def subject_features(self) -> Tensor:
        """Unit text features [S, d] of the corpus of subjects."""
        return self.tower.embed_texts(list(self._subjects)).cpu()

    @cached_property
    def text_mean(self) -> Tensor:
        return unit(self.subject_features).mean(dim=0) if self.parts.centre else torch.zeros(())

    @cached_property
    def projection(self) -> Tensor | None:
        """The projection [d, d] on the contrastive components, or None where it is off."""
        if not self.parts.components:
            return None
        subjects = unit(self.subject_features) - self.text_mean
        styles = unit(self.tower.embed_texts(list(self._styles)).cpu()) - self.text_mean
        return contrastive(subjects, styles, self.parts.components, alpha=self.parts.alpha)

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Score rows [Q, 2d] over unit picture features [N, d]: [Q, N]."""
        pictures, texts = halves(queries)
        no_picture, no_text = lacks(pictures), lacks(texts)
        mean = gallery.mean(dim=0) if self.parts.centre else torch.zeros(())
        centred = gallery - mean
        projected = self._projected(pictures - mean)
        if self.parts.expand:
            projected = self._expanded(projected, centred)
        s_image, s_text = projected @ centred.T, (texts - self.text_mean) @ centred.T
        if self.parts.normalise:
            least = self._least(centred)
            s_image, s_text = (
                (s - low) / abs(low) if low else s for s, low in zip((s_image, s_text), least, strict=True)
            )
        s_image, s_text = s_image.clamp(min=0), s_text.clamp(min=0)
        both = s_image * s_text - self.parts.harris * (s_image + s_text) ** 2
        return torch.where(no_picture, s_text, torch.where(no_text, s_image, both))

    def _projected(self, pictures: Tensor) -> Tensor:
        return pictures if self.projection is None else pictures @ self.projection

    def _expanded(self, projected: Tensor, centred: Tensor) -> Tensor:
        nearest, columns = (projected @ centred.T).topk(min(self.parts.expand, len(centred)), dim=1)
        weights = torch.softmax(SHARPNESS * torch.cat([torch.ones(len(projected), 1), nearest], dim=1), dim=1)
        neighbours = self._projected(centred)[columns]  # [Q, k, d]
        return weights[:, :1] * projected + (weights[:, 1:, None] * neighbours).sum(dim=1)

    def _least(self, centred: Tensor) -> tuple[float, float]:
        """Return the least similarity of pictures, and of subjects, to the gallery: of pairs with nothing in common."""
        some = centred[:: max(1, len(centred) // 1000)]
        texts = unit(self.subject_features) - self.text_mean
        return float((self._projected(some) @ centred.T).min()), float((texts @ centred.T).min())


def contrastive(subjects: Tensor, styles: Tensor, components: int, *, alpha: float) -> Tensor:
    """Return the projection [d, d] on the first eigenvectors of positive eigenvalue of (1 - alpha) S+ - alpha S-.

    Args:
        subjects: centred rows [S, d]; S+ is their scatter matrix.
        styles: centred rows [T, d]; S- is theirs.
    """
    scatter = [rows.double().T @ rows.double() / len(rows) for rows in (subjects, styles)]
    matrix = (1 - alpha) * scatter[0] - alpha * scatter[1] + RIDGE * torch.eye(subjects.shape[1], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    # Eigenvalues come in rising order. Along directions that no text of the corpora has, the value is the ridge's: any
    # basis of them would do as well, so they are left out.
    kept = vectors[:, values > 1.001 * RIDGE][:, -components:]
    return (kept @ kept.T).float()


def _read(name: str, text: str, default: Any) -> Any:
    kind = type(default)
    if kind is bool and text.lower() in ("yes", "no"):
        return text.lower() == "yes"
    try:
        value = kind(text) if kind is not bool else None
    except ValueError:
        value = None
    most = 1 if kind is float else 10_000
    if value is None or not 0 <= value <= most:
        wanted = "yes or no" if kind is bool else f"a number from 0 to {most}"
        raise UsageError(f'basic\'s option {name} is "{text}"; give {wanted}')
    return value


def _corpus(name: str, path: str | None) -> tuple[str, ...]:
    """Read a corpus, a text a line; raise InputError for an empty one."""
    data = read_bytes(Path(path)) if path else (files("cig") / "assets" / "corpora" / f"{name}.txt").read_bytes()
    lines = tuple(line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip())
    if not lines:
        raise InputError(f"{path} has no line; write {name} there, one a line")
    return lines


load = Basic
