"""Whether weights are sound: they can be read, all that the model wants is there, widths fit, contents are known.

Large models are not loaded: their configuration says which weights there must be, of which shapes, and the headers of
their files say which there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cig.errors import CigError, InputError, MismatchError, NotFoundError, some
from cig.io import hub
from cig.io.digests import file_digest, folder_digest
from cig.io.files import stat_file
from cig.io.json_files import read_object
from cig.io.tensors import read_header
from cig.runtime import say
from cig.weights.catalogue import Weight, composing_clips

if TYPE_CHECKING:
    import torch

State = Literal["sound", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """Of one of the catalogue's weights."""

    weight: Weight
    state: State
    path: Path | None = None
    about: str = ""  # what is wrong, or what was found
    hint: str = ""  # what to type next
    digest: str = ""  # sha256 of a file or a folder, or the commit in the hub's cache
    widths: tuple[int, int] | None = None


def inspect(weight: Weight, cache_dir: Path | None = None) -> Finding:
    """Reads what can be read; nothing is fetched."""
    path = weight.found(cache_dir)
    if path is None:
        return Finding(weight, "missing", about="not there", hint=how_to_get(weight))
    try:
        about, widths = LOOKS[weight.kind](weight, path, cache_dir)
        digest = _digest(weight, path)
    except CigError as error:
        return Finding(weight, "broken", path, str(error), _how_to_mend(weight, path))
    return Finding(weight, "sound", path, about, "", digest, widths)


def how_to_get(weight: Weight) -> str:
    if weight.address and weight.by_hand:
        return f"get {weight.file} from {weight.address}, then: cig models download {weight.name} --from-dir FOLDER"
    if weight.by_hand:
        return f"check the place {weight.place}, which a flag, the environment or cig.toml names (cig config)"
    return f"cig models download {weight.name}"


def _how_to_mend(weight: Weight, path: Path) -> str:
    if weight.shipped:
        return "install this package again"
    where = path.parent.parent if weight.on_hub else path
    return f"move {where} away; {how_to_get(weight)}"


# A look at each kind: (what was found, widths)

Look = tuple[str, tuple[int, int] | None]


def _phi(weight: Weight, path: Path, cache_dir: Path | None) -> Look:
    from cig.models.phi import kind_of, read_phi

    _, (width, hidden, out) = read_phi(path, kind_of(path, weight.network))
    against = compare_widths(weight, path, (width, out), cache_dir)
    _need_known_content(weight, path)
    return f"{width} -> {hidden} -> {out}, {against}", (width, out)


def compare_widths(weight: Weight, path: Path, widths: tuple[int, int], cache_dir: Path | None = None) -> str:
    """What a phi's (input, output) were compared with; raises MismatchError where they are not its CLIP's."""
    from cig.models.phi import need_fit

    known, source = _widths_of(weight.clip, cache_dir)
    if not known:
        return f"not compared with {weight.clip}, which is not there"
    need_fit(path, widths, weight.clip, known)
    return f"fits {weight.clip} ({source})"


def _widths_of(clip: str, cache_dir: Path | None) -> tuple[tuple[int, int] | None, str]:
    """(a CLIP's widths, how they are known)."""
    from cig.models.clip import clip_widths

    try:
        return clip_widths(clip, cache_dir), "by its configuration"
    except NotFoundError:
        return hub.repo(clip).widths, "by its published widths"


def _need_known_content(weight: Weight, path: Path) -> None:
    """Raises MismatchError for another file than the release's, or one that changed since it was converted."""
    record = record_of(path)
    original = record.get("sha256") if path.suffix == hub.WEIGHTS else file_digest(path)
    if weight.sha256 and original and original != weight.sha256:
        raise MismatchError(f"{path} is of sha256 {original}, but its release's file of {weight.sha256}")
    if record and record.get("converted") != file_digest(path):
        raise MismatchError(f"{path} has changed since it was converted from {record.get('file')}")


def record_of(path: Path) -> dict[str, Any]:
    """What is noted beside converted weights (see adoption.py); empty where nothing is."""
    note = path.with_suffix(".json")
    return read_object(note) if path.suffix == hub.WEIGHTS and note.is_file() else {}


def _tower(weight: Weight, path: Path, cache_dir: Path | None) -> Look:
    import torch

    from cig.models.clip import clip_widths, meta_clip

    shapes = _shapes(path, "model*.safetensors")
    if read_object(path / "config.json").get("model_type") != "clip":
        return f"{len(shapes)} weights, of no CLIP: which there must be is not known", None
    place = weight.place if weight.on_hub else str(path)
    _need_shapes(path, shapes, _built(path, lambda: meta_clip(place, torch.float32, cache_dir)))
    widths = clip_widths(place, cache_dir)
    return f"{len(shapes)} weights, features of width {widths[0]}, words of width {widths[1]}", widths


def _unet(weight: Weight, path: Path, cache_dir: Path | None) -> Look:
    import torch

    from cig.generators.sdxl import meta_unet

    shapes = _shapes(path, "diffusion_pytorch_model*.safetensors")
    (unet,) = models = _built(path, lambda: [meta_unet(path.parent, torch.float32, cache_dir)])
    _need_shapes(path, shapes, models)
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    clips = composing_clips()
    wanted = [_widths_of(own, cache_dir)[0] for own in clips]
    has = unet.config.cross_attention_dim, pooled
    if all(wanted) and has != (sum(own[1] for own in wanted if own), wanted[1] and wanted[1][0]):
        raise MismatchError(
            f"{path} reads prompts of width {has[0]} and pooled ones of width {has[1]}, but "
            f"{' and '.join(clips)} compose others; it was trained with other CLIPs"
        )
    return f"{len(shapes)} weights, reads prompts of width {has[0]}, pooled {has[1]}", None


def _vae(weight: Weight, path: Path, cache_dir: Path | None) -> Look:
    import torch

    from cig.generators.sdxl import meta_vae

    shapes = _shapes(path, "diffusion_pytorch_model*.safetensors")
    place = weight.place if weight.on_hub else str(path)
    _need_shapes(path, shapes, _built(path, lambda: [meta_vae(place, torch.float32, cache_dir)]))
    return f"{len(shapes)} weights", None


def _scheduler(weight: Weight, path: Path, cache_dir: Path | None) -> Look:
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        read_object(path / name)
    return "the scheduler's configuration; no weights of it are used", None


LOOKS: dict[str, Callable[[Weight, Path, Path | None], Look]] = {
    "phi": _phi,
    "tower": _tower,
    "unet": _unet,
    "vae": _vae,
    "scheduler": _scheduler,
}


# Weights by their shapes


def weight_files(folder: Path, pattern: str) -> list[Path]:
    """Files of weights; those of another precision, which are not loaded, are left out."""
    variants = (".fp16.", ".bf16.", ".non_ema.")
    return [path for path in sorted(folder.glob(pattern)) if not any(own in path.name for own in variants)]


def _shapes(folder: Path, pattern: str) -> dict[str, tuple[int, ...]]:
    files = weight_files(folder, pattern)
    if not files:
        pickled = some(path.name for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".pt", ".ckpt"))
        beside = f"; it has {pickled}, and pickles are not trusted" if pickled else ""
        raise InputError(f"{folder} has no {pattern}{beside}")
    return {name: shape for path in files for name, shape in read_header(path).items()}


def _built(folder: Path, build: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    """Models without weights; a configuration that the library cannot follow is the user's file, not our fault."""
    try:
        return build()
    except CigError:
        raise
    except Exception as error:
        raise InputError(f"{folder}/config.json makes no model: {type(error).__name__}: {error}") from error


def _need_shapes(folder: Path, there: dict[str, tuple[int, ...]], models: Iterable[torch.nn.Module]) -> None:
    """Raises InputError for weights that lack or are of another shape."""
    wanted = {name: tuple(own.shape) for model in models for name, own in model.state_dict().items()}
    lacking = [name for name in wanted if name not in there]
    wrong = [f"{name} {there[name]}, not {shape}" for name, shape in wanted.items() if there.get(name, shape) != shape]
    if lacking or wrong:
        about = [f"lacks {len(lacking)} weights ({some(lacking, 3)})"] if lacking else []
        about += [f"has {len(wrong)} of another shape ({some(wrong, 3)})"] if wrong else []
        raise InputError(f"{folder} {' and '.join(about)}")


def _digest(weight: Weight, path: Path) -> str:
    """Of a file or folder; in the hub's cache each content is compared with the digest that it is stored under."""
    if path.is_file():
        return file_digest(path)
    if not weight.on_hub:
        return folder_digest(path / "scheduler" if weight.kind == "scheduler" else path)
    for own in sorted(path.rglob(f"*{hub.WEIGHTS}")):
        stored = own.resolve().name
        if stat_file(own).st_size > 2**30:
            say(f"reading {own.name} of {weight.name}, {stat_file(own).st_size / 1e9:.1f} GB")
        if len(stored) == 64 and file_digest(own) != stored:
            raise InputError(f"{own} is not of the sha256 that the hub says, {stored}: damaged on its way or here")
    return path.parent.name if weight.kind == "unet" else path.name


# For people and programs


def to_text(finding: Finding) -> str:
    """Two or three lines."""
    own = finding.weight
    head = f"{own.name}: {finding.state}"
    place = f"  at {finding.path}" if finding.path else f"  wanted at {own.place} by {some(own.wanted_by, 5)}"
    known = f" ({'commit' if own.on_hub else 'sha256'} {finding.digest})" if finding.digest else ""
    lines = [head, f"{place}{known}", f"  {finding.about}"]
    return "\n".join(lines + ([f"  next: {finding.hint}"] if finding.hint else []))


def to_json(finding: Finding) -> dict[str, Any]:
    own = {key: value for key, value in vars(finding).items() if key not in ("weight", "path")}
    return {"name": finding.weight.name, "path": str(finding.path) if finding.path else None, **own}
