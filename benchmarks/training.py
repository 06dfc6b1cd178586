"""Peak memory and samples a second of each objective of `cig train`; of SDXL itself with --sdxl, on a GPU.

    python benchmarks/training.py build/training            # small models, random weights, icons
    python benchmarks/training.py build/training --sdxl     # SDXL's UNet in bf16, random weights: 512 and 1024 pixels
    python benchmarks/training.py build/training --counted  # what SDXL needs, counted without weights

Each row is a process of its own, so that its peak is its own. A new objective is a line of OBJECTIVES.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cig.cli import train, train_oti, train_phi, train_words
from cig.cli.flags import LoopFlags, SearleFlags
from cig.cli.terminal import messages_on_stderr
from cig.io.files import write_bytes
from cig.io.json_files import write_json
from cig.machine import measured
from cig.runtime import Compute, say
from training_sdxl import CASES, RANK, counted, sdxl, yes

STEPS = 4
PARTS, CONCEPTS, PHRASES = "parts", "concepts.csv", "phrases.jsonl"
PICTURES, NAMES = 64, ("folder", "arrow", "bell", "cloud", "user", "heart", "lock", "star")

# Small models, everything else as it is


def phi(objective: str) -> Callable[[Path, Path], int]:
    def run(parts: Path, out: Path) -> int:
        flags: dict[str, Any] = {"clip": f"{parts}/clip", "out": out, "objective": objective, "batch_size": 32}
        if objective == "searle":
            flags["searle"] = SearleFlags(parts / "words", parts / CONCEPTS, parts / PHRASES, limit=PICTURES)
        train_phi.phi("icons/train", steps=STEPS, loop=loop(), **flags)
        return 32

    return run


def oti(parts: Path, out: Path) -> int:
    """A sample is a picture's word in one step."""
    said = {"concepts": parts / CONCEPTS, "phrases": parts / PHRASES}
    words: dict[str, Any] = {"clip": f"{parts}/clip", **said, "limit": 32, "batch_size": 32, "steps": STEPS}
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    train_oti.oti("icons/train", out=out, compute=Compute(device="cpu"), **words)
    write_json(out / "training.json", {"steps": STEPS, "seconds": time.monotonic() - started})
    return 32


def clip(parts: Path, out: Path) -> int:
    train.clip("icons/train", out=out, steps=STEPS, batch_size=32, loop=loop())
    return 32


def vae(parts: Path, out: Path) -> int:
    train.vae("icons/train", out=out, steps=STEPS, batch_size=8, loop=loop())
    return 8


def generator(**others: Any) -> Callable[[Path, Path], int]:
    def run(parts: Path, out: Path) -> int:
        shown = {"start": str(parts / "generator"), **others}
        for shelf in (parts / "generator").glob("shelf-*"):  # latents and features are not what is measured
            shutil.copytree(shelf, out / shelf.name, dirs_exist_ok=True)
        train.generator("icons/train", **models(parts), out=out, steps=STEPS, loop=loop(), **shown)
        return 8

    return run


OBJECTIVES: dict[str, Callable[[Path, Path], int]] = {  # (parts, out) -> samples a step
    "clip": clip,
    "phi lincir": phi("lincir"),
    "phi pic2word": phi("pic2word"),
    "phi searle": phi("searle"),
    "oti (with loading)": oti,
    "vae": vae,
    "generator, full": generator(),
    "generator, LoRA": generator(lora=RANK),
    "generator, full, gradient checkpointing": generator(gradient_checkpointing=True),
}


def loop(steps: int = STEPS) -> LoopFlags:
    return LoopFlags(device="cpu", save_every=steps)


def models(parts: Path) -> dict[str, Any]:
    phis = dict.fromkeys(("phi", "phi2"), parts / "phi" / "phi.safetensors")
    clips = {name: str(parts / "clip") for name in ("clip", "clip2")}
    return {**clips, **phis, "vae": str(parts / "vae"), "limit": 32, "batch_size": 8}


def make(parts: Path) -> None:
    """What the others start from: small models after one step, which is enough to compute with."""
    if (parts / "made").exists():
        return
    one: dict[str, Any] = {"steps": 1, "loop": loop(1)}
    train.clip("icons/train", out=parts / "clip", batch_size=8, **one)
    train_phi.phi("icons/train", clip=f"{parts}/clip", out=parts / "phi", batch_size=8, **one)
    train.vae("icons/train", out=parts / "vae", batch_size=8, **one)
    train.generator("icons/train", **models(parts), out=parts / "generator", **one)
    make_words(parts)
    (parts / "made").touch()


def make_words(parts: Path) -> None:
    """Names, phrases with them, and words of one step, of the first pictures."""
    write_bytes(parts / "names.txt", "".join(f"{name}\n" for name in NAMES).encode())
    lines = [json.dumps({"concept": name, "phrases": [f"a photo of {name} that is red"]}) for name in NAMES]
    write_bytes(parts / PHRASES, "".join(f"{line}\n" for line in lines).encode())
    seen: dict[str, Any] = {"clip": f"{parts}/clip", "limit": PICTURES, "compute": Compute(device="cpu")}
    train_words.concepts("icons/train", vocabulary=f"{parts}/names.txt", k=len(NAMES), out=parts / CONCEPTS, **seen)
    said: dict[str, Any] = {"concepts": parts / CONCEPTS, "phrases": parts / PHRASES}
    train_oti.oti("icons/train", out=parts / "words", steps=1, **said, **seen)


def small(home: Path, name: str) -> dict[str, Any]:
    """Of one objective, in this process."""
    out = home / name.replace(", ", "-").replace(" ", "-")
    for path in out.glob("checkpoint.pt"):
        path.unlink()
    with measured() as cost:
        batch = OBJECTIVES[name](home / PARTS, out)
    card = json.loads((out / "training.json").read_text())
    pace = batch * card["steps"] / card["seconds"]
    return {"objective": name, "batch": batch, "samples/s": pace, "peak GB": cost.gigabytes, "device": cost.device}


# Telling


def alone(home: Path, job: str, *rest: str) -> dict[str, Any]:
    """A row, computed in a process of its own."""
    command = [sys.executable, __file__, str(home), "--alone", job, *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job} {' '.join(rest)} failed:\n{done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def row_of(home: Path, job: str, rest: list[str]) -> dict[str, Any]:
    if job == "small":
        return small(home, rest[0])
    kind, side, saving = rest
    return {"sdxl": sdxl, "counted": counted}[job](kind, int(side), saving == "yes")


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    columns = [key for key in rows[0] if key != "device"]
    cells = [[f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *cells))


@messages_on_stderr()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("home", type=Path)
    arguments.add_argument("--sdxl", action="store_true", help="SDXL's UNet on a GPU")
    arguments.add_argument("--counted", action="store_true", help="what SDXL needs, counted without weights")
    arguments.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.alone:
        print(json.dumps(row_of(asked.home, asked.alone[0], asked.alone[1:])))
        return
    if asked.sdxl and not torch.cuda.is_available():
        raise SystemExit("--sdxl needs a GPU; --counted says without one what it would take")
    started = time.monotonic()
    if asked.sdxl or asked.counted:
        job = "sdxl" if asked.sdxl else "counted"
        rows = [alone(asked.home, job, kind, str(side), yes(saving)) for kind, side, saving in CASES]
    else:
        make(asked.home / PARTS)
        rows = [alone(asked.home, "small", name) for name in OBJECTIVES]
    print(table(rows))
    where = rows[0].get("device") or "no device: counted"
    print(f"\n{where}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}")
    say(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
