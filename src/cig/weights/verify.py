"""Verify checkpoints: files can be read, no tensor is missing, widths fit, contents have the expected digests.

Large models are not loaded: the configuration states the names and shapes of the tensors that a model needs, and the
headers of safetensors files state those that are present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cig.errors import CigError, InputError, MismatchError, NotFoundError, some
from cig.io import hub
from cig.io.digests import folder_digest, read_digest
from cig.io.files import stat_file
from cig.io.json_files import read_object
from cig.io.tensors import read_header
from cig.runtime import say
from cig.weights.catalogue import ModelCheckpoint, composing_clips

if TYPE_CHECKING:
    import torch

State = Literal["sound", "missing", "incomplete", "broken"]  # incomplete: a download that can go on


@dataclass(frozen=True)
class Inspection:
    """What was verified of one checkpoint of the catalogue."""

    checkpoint: ModelCheckpoint
    state: State
    path: Path | None = None
    detail: str = ""  # what is wrong, or what was verified
    hint: str = ""  # what to type next
    digest: str = ""  # sha256 of a file or a folder, or the commit in the hub's cache
    widths: tuple[int, int] | None = None


def inspect(checkpoint: ModelCheckpoint, cache_dir: Path | None = None) -> Inspection:
    """Verify a checkpoint that is on this machine; nothing is fetched."""
    path = checkpoint.local_path(cache_dir)
    if path is None:
        return _absent(checkpoint)
    try:
        detail, widths = INSPECTORS[checkpoint.kind](checkpoint, path, cache_dir)
        digest = _digest(checkpoint, path)
    except (LackingFileError, NotFoundError) as error:
        if checkpoint.on_hub:
            return Inspection(checkpoint, "incomplete", path, detail=str(error), hint=_how_to_go_on(checkpoint))
        # The configuration is copied last, so a folder without it is of an import that was stopped.
        if checkpoint.kind == "unet" and not (path / "config.json").exists():
            return Inspection(checkpoint, "incomplete", path, detail=str(error), hint=how_to_get(checkpoint))
        return Inspection(checkpoint, "broken", path, detail=str(error), hint=_how_to_repair(checkpoint, path))
    except CigError as error:
        return Inspection(checkpoint, "broken", path, detail=str(error), hint=_how_to_repair(checkpoint, path))
    return Inspection(checkpoint, "sound", path, detail=detail, digest=digest, widths=widths)


class LackingFileError(InputError):
    """A model's folder lacks files, which a download may still bring."""


def _absent(checkpoint: ModelCheckpoint) -> Inspection:
    """Tell a checkpoint of which nothing came from one whose release came in part."""
    part = Path(checkpoint.location).with_suffix(".release.part")
    size = stat_file(part).st_size if checkpoint.kind == "phi" and part.is_file() else 0
    if size:
        detail = f"{size / 1e6:,.1f} MB of its release came so far"
        return Inspection(checkpoint, "incomplete", part, detail=detail, hint=_how_to_go_on(checkpoint))
    return Inspection(checkpoint, "missing", detail="not there", hint=how_to_get(checkpoint))


def _how_to_go_on(checkpoint: ModelCheckpoint) -> str:
    return f"cig models download {checkpoint.name}, which fetches the rest"


def how_to_get(checkpoint: ModelCheckpoint) -> str:
    """Say what to type to get a checkpoint, and where to get it by hand."""
    command = f"cig models download {checkpoint.name}"
    if checkpoint.address and checkpoint.by_hand:
        return f"get {checkpoint.file} from {checkpoint.address}, then: {command} --from-dir FOLDER"
    if checkpoint.by_hand:
        return f"check the place {checkpoint.location}, which a flag, the environment or cig.toml names (cig config)"
    return command


def _how_to_repair(checkpoint: ModelCheckpoint, path: Path) -> str:
    if checkpoint.shipped:
        return "install this package again"
    broken = path.parent.parent if checkpoint.on_hub else path
    return f"move {broken} away; {how_to_get(checkpoint)}"


# Each kind

Findings = tuple[str, tuple[int, int] | None]  # (what was verified, widths)


def _phi(checkpoint: ModelCheckpoint, path: Path, cache_dir: Path | None) -> Findings:
    from cig.models.phi import checkpoint_kind, read_phi

    _, (width, hidden, out) = read_phi(path, checkpoint_kind(path, checkpoint.network))
    against = compare_widths(checkpoint, path, (width, out), cache_dir=cache_dir)
    _need_known_content(checkpoint, path)
    return f"{width} -> {hidden} -> {out}, {against}", (width, out)


def compare_widths(
    checkpoint: ModelCheckpoint, path: Path, widths: tuple[int, int], *, cache_dir: Path | None = None
) -> str:
    """Compare a phi's (input, output) with its CLIP's, and say with what; raise MismatchError where they differ."""
    from cig.models.phi import need_fit

    if not checkpoint.clip:
        return "compared with no CLIP"
    expected, source = _widths_of(checkpoint.clip, cache_dir)
    if not expected:
        return f"not compared with {checkpoint.clip}, which is not there"
    need_fit(path, widths, checkpoint.clip, widths=expected)
    return f"fits {checkpoint.clip} ({source})"


def _widths_of(clip: str, cache_dir: Path | None) -> tuple[tuple[int, int] | None, str]:
    """Return a CLIP's widths, and their source."""
    from cig.models._meta import clip_widths

    try:
        return clip_widths(clip, cache_dir), "by its configuration"
    except NotFoundError:
        return hub.repo(clip).widths, "by its published widths"


def _need_known_content(checkpoint: ModelCheckpoint, path: Path) -> None:
    """Raise MismatchError for another file than the release's, or one that changed since it was converted."""
    record = record_of(path)
    original = record.get("sha256") if path.suffix == hub.WEIGHTS else read_digest(path)
    if checkpoint.sha256 and original and original != checkpoint.sha256:
        raise MismatchError(f"{path} is of sha256 {original}, but its release's file of {checkpoint.sha256}")
    if record and record.get("converted") != read_digest(path):
        raise MismatchError(f"{path} has changed since it was converted from {record.get('file')}")


def record_of(path: Path) -> dict[str, Any]:
    """Return the note beside a converted checkpoint (see convert.py); an empty one where there is none."""
    note = path.with_suffix(".json")
    return read_object(note) if path.suffix == hub.WEIGHTS and note.is_file() else {}


def _tower(checkpoint: ModelCheckpoint, path: Path, cache_dir: Path | None) -> Findings:
    import torch

    from cig.models._meta import clip_widths, meta_clip

    shapes = _shapes(path, "model*.safetensors")
    if read_object(path / "config.json").get("model_type") != "clip":
        return f"{len(shapes)} weights, of no CLIP: which there must be is not known", None
    source = checkpoint.location if checkpoint.on_hub else str(path)
    _need_shapes(path, shapes, _build(path, lambda: meta_clip(source, torch.float32, cache_dir)))
    widths = clip_widths(source, cache_dir)
    return f"{len(shapes)} weights, features of width {widths[0]}, words of width {widths[1]}", widths


def _unet(checkpoint: ModelCheckpoint, path: Path, cache_dir: Path | None) -> Findings:
    import torch

    from cig.generators._meta import meta_unet

    shapes = _shapes(path, "diffusion_pytorch_model*.safetensors")
    (unet,) = models = _build(path, lambda: [meta_unet(path.parent, torch.float32, cache_dir)])
    _need_shapes(path, shapes, models)
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    clips = composing_clips()
    # SDXL's prompt is the two CLIPs' words side by side, its pooled vector the second CLIP's projected text.
    wanted = [_widths_of(clip, cache_dir)[0] for clip in clips]
    has = unet.config.cross_attention_dim, pooled
    if (
        checkpoint.wanted_by
        and all(wanted)
        and has != (sum(widths[1] for widths in wanted if widths), wanted[1] and wanted[1][0])
    ):
        raise MismatchError(
            f"{path} reads prompts of width {has[0]} and pooled ones of width {has[1]}, but "
            f"{' and '.join(clips)} compose others; it was trained with other CLIPs"
        )
    return f"{len(shapes)} weights, reads prompts of width {has[0]}, pooled {has[1]}", None


def _vae(checkpoint: ModelCheckpoint, path: Path, cache_dir: Path | None) -> Findings:
    import torch

    from cig.generators._meta import meta_vae

    shapes = _shapes(path, "diffusion_pytorch_model*.safetensors")
    source = checkpoint.location if checkpoint.on_hub else str(path)
    _need_shapes(path, shapes, _build(path, lambda: [meta_vae(source, torch.float32, cache_dir)]))
    return f"{len(shapes)} weights", None


def _scheduler(checkpoint: ModelCheckpoint, path: Path, cache_dir: Path | None) -> Findings:
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        read_object(path / name)
    return "the scheduler's configuration; no weights of it are used", None


INSPECTORS: dict[str, Callable[[ModelCheckpoint, Path, Path | None], Findings]] = {
    "phi": _phi,
    "tower": _tower,
    "unet": _unet,
    "vae": _vae,
    "scheduler": _scheduler,
}


# Tensors by their shapes


def checkpoint_files(folder: Path, pattern: str) -> list[Path]:
    """List a folder's checkpoint files, without those of another precision, which are not loaded."""
    variants = (".fp16.", ".bf16.", ".non_ema.")
    return [path for path in sorted(folder.glob(pattern)) if not any(variant in path.name for variant in variants)]


def _shapes(folder: Path, pattern: str) -> dict[str, tuple[int, ...]]:
    files = checkpoint_files(folder, pattern)
    if not files:
        pickled = some(path.name for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".pt", ".ckpt"))
        beside = f"; it has {pickled}, and pickles are not trusted" if pickled else ""
        raise LackingFileError(f"{folder} has no {pattern}{beside}")
    for index in sorted(folder.glob(f"{pattern}.index.json")):
        shards = read_object(index).get("weight_map")
        lacking = (
            sorted({*map(str, shards.values())} - {path.name for path in files}) if isinstance(shards, dict) else []
        )
        if lacking:
            raise LackingFileError(f"{folder} lacks {some(lacking, 3)}, which {index.name} names")
    return {name: shape for path in files for name, shape in read_header(path).items()}


def _build(folder: Path, build: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    """Build models without weights; raise InputError for a configuration that the library cannot follow."""
    try:
        return build()
    except CigError:
        raise
    except Exception as error:
        raise InputError(f"{folder}/config.json makes no model: {type(error).__name__}: {error}") from error


def _need_shapes(folder: Path, present: dict[str, tuple[int, ...]], models: Iterable[torch.nn.Module]) -> None:
    """Raise InputError where tensors are missing or have another shape."""
    wanted = {name: tuple(tensor.shape) for model in models for name, tensor in model.state_dict().items()}
    lacking = [name for name in wanted if name not in present]
    wrong = [
        f"{name} {present[name]}, not {shape}" for name, shape in wanted.items() if present.get(name, shape) != shape
    ]
    if lacking or wrong:
        problems = [f"lacks {len(lacking)} weights ({some(lacking, 3)})"] if lacking else []
        problems += [f"has {len(wrong)} of another shape ({some(wrong, 3)})"] if wrong else []
        raise InputError(f"{folder} {' and '.join(problems)}")


def _digest(checkpoint: ModelCheckpoint, path: Path) -> str:
    """Digest a file or folder.

    In the hub's cache, files are links into blobs that are named by the sha256 that the hub stated, so each is
    compared with its own name: a damaged download, or a damaged disk, shows. The digest is then the commit.
    """
    if path.is_file():
        return read_digest(path)
    if not checkpoint.on_hub:
        return folder_digest(path / "scheduler" if checkpoint.kind == "scheduler" else path, read_digest)
    for file in sorted(path.rglob(f"*{hub.WEIGHTS}")):
        stored = file.resolve().name
        if stat_file(file).st_size > 2**30:
            say(f"reading {file.name} of {checkpoint.name}, {stat_file(file).st_size / 1e9:.1f} GB")
        if len(stored) == 64 and read_digest(file) != stored:
            raise InputError(f"{file} is not of the sha256 that the hub says, {stored}: damaged on its way or here")
    return path.parent.name if checkpoint.kind == "unet" else path.name


def to_text(inspection: Inspection) -> str:
    """Describe an inspection in three lines, or four with what to type next."""
    checkpoint = inspection.checkpoint
    wanted = f"  wanted at {checkpoint.location} by {some(checkpoint.wanted_by, 5)}"
    location = f"  at {inspection.path}" if inspection.path else wanted
    version = f" ({'commit' if checkpoint.on_hub else 'sha256'} {inspection.digest})" if inspection.digest else ""
    lines = [f"{checkpoint.name}: {inspection.state}", f"{location}{version}", f"  {inspection.detail}"]
    return "\n".join(lines + ([f"  next: {inspection.hint}"] if inspection.hint else []))


def to_json(inspection: Inspection) -> dict[str, Any]:
    """Return what `cig models check --json` writes."""
    return {
        "name": inspection.checkpoint.name,
        "path": str(inspection.path) if inspection.path else None,
        "state": inspection.state,
        "about": inspection.detail,
        "hint": inspection.hint,
        "digest": inspection.digest,
        "widths": inspection.widths,
    }
