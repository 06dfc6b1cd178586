"""SEARLE-OTI (Baldrati et al., ICCV 2023): a pseudo-word optimised for each picture; targetpad, word at the first $.

`--phi` is a folder as SEARLE's `oti_inversion.py` writes it: `ema_oti_pseudo_tokens.pt` [N, h], `image_names.pkl` and
`hyperparameters.json`. `cig train-oti` writes `.safetensors` and `image_names.json`, a list, instead. A name with
folders means files in such folders only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cig.errors import InputError, MismatchError, NotFoundError
from cig.io.digests import Hasher, file_digest, set_digest
from cig.io.json_files import read_json, read_object
from cig.io.pickled_names import read_pickled_names
from cig.io.tensors import read_matrix
from cig.methods import CLIPS, Source, Weights
from cig.methods._inversion import PROMPTED, WordMethod, template_of
from cig.methods._picture_names import Names
from cig.models.clip import Clip
from cig.models.prompts import PROMPT
from cig.types import Query

OPTIONS = PROMPTED
VARIANTS = {name: Weights(CLIPS[name], words=True) for name in ("b32", "l14")}
OPENAI = {"b32": "ViT-B/32", "l14": "ViT-L/14"}  # their names in hyperparameters.json
WORDS = ("ema_oti_pseudo_tokens.pt", "ema_oti_pseudo_tokens.safetensors")
NAMES = ("image_names.json", "image_names.pkl")


@dataclass(frozen=True)
class PseudoWords:
    """The pseudo-words of pictures, by name."""

    folder: Path
    names: Names
    words: Tensor  # [N, h] float32

    def lacking(self, paths: Sequence[Path]) -> dict[Path, str]:
        return self.names.lacking(paths, "pseudo-word", self.folder)

    def of(self, paths: Sequence[Path]) -> Tensor:
        """Return the words [len(paths), h]; raises InputError that names every picture without one."""
        return self.words[self.names.rows_of(paths, "pseudo-word", self.folder, hint="invert them, too")]


class Oti(WordMethod):
    """The method. A picture without a word can be in the gallery, but not be a reference."""

    asks_for_queries = True
    words: PseudoWords

    def no_query(self, paths: Sequence[Path]) -> dict[Path, str]:
        return self.words.lacking(paths)

    def no_entry(self, paths: Sequence[Path], gallery: Sequence[Path], *, bare: bool = False) -> dict[Path, str]:
        words = self.words
        return words.names.lacking_own(paths, gallery, "pseudo-word", source=words.folder, bare=bare)

    def embed_queries(
        self,
        image_features: Tensor,
        captions: Sequence[tuple[str, ...]],
        *,
        queries: Sequence[Query],
        paths: Sequence[Path],
    ) -> Tensor:
        return self.embed_words(self.words.of(paths), captions)


def load(variant: str, source: Source) -> Oti:
    assert source.phi is not None  # check_flags refuses an `oti` without --phi
    words = read_words(source.phi)
    if not source.clip:
        _check_clip(source.phi, variant)
    clip = source.load_clip(VARIANTS[variant])
    if words.words.shape[1] != clip.token_width:
        raise MismatchError(
            f"the pseudo-words in {source.phi} have width {words.words.shape[1]}, but the words of the CLIP "
            f"{clip.identity['source']} have width {clip.token_width}; give the CLIP that they were optimised with"
        )
    check_content(source.phi, clip)
    preprocess = clip.preprocess(pad=source.preprocessing != "clip")
    models = {"clip": clip.identity, "phi": words_identity(source.phi), "licence": "unknown"}
    template = template_of(source)
    models |= {"prompt": template} if template != PROMPT else {}
    name = "oti" if source.clip else f"oti/{variant}"
    method = Oti(name, clip, preprocess, placement="first", identity=models)
    method.words, method.template = words, template
    return method


def read_words(folder: Path) -> PseudoWords:
    """Read a folder of pseudo-words; raises NotFoundError or InputError."""
    tensor, listed = _files(folder)
    names = read_pickled_names(listed) if listed.suffix == ".pkl" else read_json(listed)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{listed}: expected a list of names")
    words = read_matrix(tensor)
    if len(names) != len(words):
        raise InputError(f"{folder}: {tensor.name} has {len(words)} rows, but {listed.name} {len(names)} names")
    # SEARLE's own files list a FashionIQ picture once for each category that it is in
    return PseudoWords(folder, Names.of(names, listed, repeats=True), words)


def words_identity(folder: Path, hasher: Hasher = file_digest) -> dict[str, str]:
    """Identify a folder of pseudo-words by the digest of its words and names."""
    return {"source": str(folder), "sha256": set_digest(map(hasher, _files(folder)))}


def _files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of (words, names)."""

    def first(names: Sequence[str]) -> Path:
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise NotFoundError(f"{folder} has neither {' nor '.join(names)}; give a folder of pseudo-words with --phi")

    return first(WORDS), first(NAMES)


def _check_clip(folder: Path, variant: str) -> None:
    """Raise MismatchError if the folder names another CLIP than the variant's."""
    clip_name = _hyperparameters(folder).get("clip_model_name")
    if clip_name not in (None, OPENAI[variant]):
        hints = {name: f"--method oti/{other}" for other, name in OPENAI.items()}
        hint = hints.get(str(clip_name), "give that one with --clip")
        raise MismatchError(
            f'{folder / "hyperparameters.json"} says "{clip_name}", but oti/{variant} is {OPENAI[variant]}: {hint}'
        )


def check_content(folder: Path, clip: Clip) -> None:
    """Raise MismatchError if the words were optimised with other weights; folders of SEARLE's code do not say."""
    recorded, digest = _hyperparameters(folder).get("clip"), clip.identity.get("sha256")
    if digest and isinstance(recorded, str) and "@" not in recorded and recorded != digest:
        name = _hyperparameters(folder).get("clip_model_name")
        raise MismatchError(
            f"the pseudo-words in {folder} were optimised with another CLIP ({name}) than {clip.identity['source']}; "
            f"give that one with --clip"
        )


def model_name(source: str) -> str:
    """Return OpenAI's name of a CLIP, as in hyperparameters.json; the hub id or folder of any other."""
    return {CLIPS[variant]: name for variant, name in OPENAI.items()}.get(source, source)


def _hyperparameters(folder: Path) -> dict[str, Any]:
    path = folder / "hyperparameters.json"
    return read_object(path) if path.is_file() else {}
