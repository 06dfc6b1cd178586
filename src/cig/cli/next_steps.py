"""What to type after a `cig train` verb: the command that uses what was trained.

Words in capitals are for the reader to fill in.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from cig import registry
from cig.errors import CigError
from cig.runtime import say

SEARCHED = "cirr/val"  # where nothing names a benchmark that has targets


def benchmark_of(data: str, default: str = SEARCHED) -> str:
    """Return the benchmark to evaluate on what was trained on some data: its val split, if it is one."""
    try:
        splits = registry.load("benchmarks", data.partition("/")[0]).SPLITS
    except CigError:
        return default
    return f"{data.partition('/')[0]}/val" if "val" in splits else default


def say_next(*words: str | Path) -> None:
    """Say the command, once for all processes."""
    from cig.training import processes

    if processes.rank() == 0:
        line = " ".join(word if str(word).isupper() else shlex.quote(str(word)) for word in map(str, words))
        say(f"next: cig {line}")


def after_clip(data: str, out: Path) -> None:
    benchmark = benchmark_of(data, "")
    searched = ("evaluate", benchmark) if benchmark else ("search", "FOLDER", "--text", "WORDS")
    say_next(*searched, "--method", "sum", "--clip", out)


def after_phi(benchmark: str, objective: str, clip: str, *, out: Path) -> None:
    say_next("evaluate", benchmark, "--method", objective, "--clip", clip, "--phi", out)


def after_words(data: str, clip: str, out: Path, *, concepts: Path | None, phrases: Path | None) -> None:
    """Say how to search with the words of a benchmark's references; how to distil those of any other pictures."""
    searched = ("--method", "oti", "--clip", clip, "--phi", out)
    split = data.partition("/")[2] if benchmark_of(data, "") else "train"
    if split.startswith("test"):
        say_next("submit", data, "--submission-name", "NAME", *searched)
    elif split != "train":
        say_next("evaluate", data, *searched)
    else:
        taught = ("--oti", out, "--concepts", concepts or "CONCEPTS", "--phrases", phrases or "PHRASES")
        say_next("train", "phi", data, "--objective", "searle", "--clip", clip, *taught, "--out", "PHI")


def after_vae(data: str, out: Path) -> None:
    composer = ("--clip", "CLIP", "--phi", "PHI", "--clip2", "CLIP2", "--phi2", "PHI2")
    say_next("train", "generator", data, *composer, "--vae", out, "--out", "GENERATOR")


def after_generator(data: str, composer: tuple[str, Path, str, Path], out: Path, *, side: int) -> None:
    clip, phi, clip2, phi2 = composer
    models = ("--clip", clip, "--phi", phi, "--clip2", clip2, "--phi2", phi2)
    parts = ("--model-path", out, "--sdxl-repo", out, "--vae-repo", out / "vae")
    say_next("run", benchmark_of(data), *models, *parts, "--height", str(side), "--width", str(side))


def after_concepts(out: Path) -> None:
    say_next("train", "phrases", out, "--out", out.with_name("phrases.jsonl"))


def after_phrases(concepts: str, out: Path) -> None:
    say_next("train", "oti", "PICTURES", "--clip", "CLIP", "--concepts", concepts, "--phrases", out, "--out", "OTI")
