"""Call every verb with random and hostile arguments, and report tracebacks, odd exit codes and files written elsewhere.

    sudo python benchmarks/fuzz_verbs.py build/fuzz --calls 2000 --seed 1

Each call is a fork of one process that has torch's imports. As root, forks run as nobody, so that they can write below
HOME/scratch and in the machine's temporary folders alone; what appears in those is reported. Nothing reaches a network.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

NOBODY = 65534
SECONDS = 40.0  # a call that takes longer is stopped by Ctrl-C, and killed after as long again
SERVERS = ("serve", "trial")  # they end when they are stopped
ALLOWED = {0, 1, 2, 130}
SHARED = ("/tmp", "/var/tmp", "/dev/shm")
FLAG = re.compile(r"^│\s+\*?\s*((?:--[\w-]+ ?)+)(?:\(-\w\) ?)?([A-Z]+(?:\.\.\.)?)?", re.MULTILINE)
CHOICES = re.compile(r"\[choices: ([^\]]+)\]")
HOSTILE = (
    *("", " ", "-", "--", "../..", "/", ".", "/etc/passwd", "/dev/null", "nan", "inf", "-inf", "1e999", "-1", "0"),
    *(
        "99999999999999999999",
        "0x10",
        "1,5",
        "\n",
        "a\nb",
        "\x1b[31m",
        "é" * 300,
        "名前",
        "%s%n",
        "{caption}",
        "${HOME}",
    ),
    *("cirr/val", "no/such", "searle", "a=b", "=", "yes", "None", "null", "[]", "{}", "a" * 5000, "\udcff"),
)
FILES = (
    *("odd/empty", "odd/nul", "odd/deep.json", "odd/list.json", "odd/latin.csv", "odd/pickle.pt", "odd/folder.pt"),
    *("odd/loop", "odd/gone", "odd/huge.png", "odd/cut.png", "odd", "out", "out/new.json", "out/new.html", "out/x.pt"),
    *(
        "odd/pipe",
        "odd/closed",
        "odd/closed.json",
        "odd/nan.pt",
        "odd/nan.npz",
        "odd/pictures",
        "odd/a\nb.json",
        "world/ix",
    ),
    *("odd/ends.jsonl", "odd/numbers.json", "world/captions.txt", "world/pairs.csv", "out/deep/er", "odd/empty/below"),
    *("world/CIRR", "world/CIRCO", "world/FashionIQ", "world/shop", "world/models", "world/models/clip-small"),
    *("world/models/phi-small.pt", "world/models/sdxl", "world/CIRCO/annotations/val.json", "world/shop/queries.csv"),
)
SETTINGS = (  # of a cig.toml in the working folder, and of the environment
    *(
        '[search]\nmethod = "lincir"',
        '[search]\nclip = "odd/loop"\nphi = "odd"',
        "[search",
        "cirr = 5",
        "[branch]\nname = 1",
    ),
    *(
        '[[branch]]\nname = "a"\npictures = "oracle"\nweight = 0.5',
        "[compute]\nmax_pixels = -1",
        '[generate]\nseeds = "x"',
    ),
    *(
        "[search]\nfusion_weight = nan",
        '[compute]\ndevice = "tpu"',
        'cirr = "\\u0000"',
        "a = [" * 5000,
        "\ufeffcirr = 'a'",
    ),
)
VARIABLES = (
    *("CIG_SEARCH_METHOD", "CIG_SEARCH_PHI", "CIG_COMPUTE_DEVICE", "CIG_CIRR", "CIG_SEARCH_FEATURE_CACHE"),
    *("CIG_GENERATE_SEEDS", "CIG_COMPOSE_CLIP", "XDG_CACHE_HOME", "HF_HOME", "LANG", "COLUMNS", "RANK"),
)
CIRR, CLIP, PHI = "world/CIRR", "world/models/clip-small", "world/models/phi-small.pt"
PICTURES = "world/shop"
COMPOSE = ("--clip", CLIP, "--clip2", "world/models/clip-large", "--phi", PHI, "--phi2", "world/models/phi-large.pt")
CALLS = (
    ("evaluate", "cirr/val", "--dataset-path", CIRR, "--method", "searle", "--clip", CLIP, "--phi", PHI),
    ("evaluate", "circo/val", "--dataset-path", "world/CIRCO", "--method", "sum", "--clip", CLIP),
    ("evaluate", "fashioniq/val", "--dataset-path", "world/FashionIQ", "--method", "image", "--clip", CLIP),
    ("submit", "cirr/test", "--dataset-path", CIRR, "--method", "image", "--clip", CLIP, "--submission-name", "x"),
    ("score", "cirr/val", "odd/list.json", "--dataset-path", CIRR),
    ("extract", "cirr/val", "--dataset-path", CIRR, *COMPOSE),
    ("generate", "cirr/val", "--dataset-path", CIRR, "--text-embeddings-dir", "out/embeddings"),
    ("compare", "cirr/val", "--dataset-path", CIRR, "--methods", f"image clip={CLIP}"),
    ("run", "cirr/val", "--dataset-path", CIRR, *COMPOSE, "--method", "image", "--search-clip", CLIP),
    ("search", PICTURES, "--text", "red", "--method", "sum", "--clip", CLIP),
    ("index", "build", PICTURES, "--out", "out/ix", "--method", "image", "--clip", CLIP),
    ("index", "build", "odd/pictures", "--out", "out/odd", "--method", "image", "--clip", CLIP),
    *(("index", verb, "world/ix") for verb in ("info", "verify")),
    *(("index", verb, "world/ix", "odd/cut.png") for verb in ("add", "remove")),
    ("search", "world/ix", "--text", "red", "--json", "out/hits.json"),
    (
        "search",
        "odd/pictures",
        "--image",
        "odd/cut.png",
        "--method",
        "image",
        "--clip",
        CLIP,
        "--html",
        "out/hits.html",
    ),
    ("demo", "--out", "out/demo", "-k", "3"),
    ("serve", "world/ix", "--port", "0"),
    ("serve", PICTURES, "--method", "image", "--clip", CLIP, "--port", "0"),
    ("trial", PICTURES, "--queries", "world/shop/queries.csv", "--generated-image-dir", "out", "--method", "image"),
    *((verb, "circo/val", "--dataset-path", "world/CIRCO") for verb in ("check", "stats")),
    ("plan", "cirr/val", "--dataset-path", CIRR),
    ("validate-submission", "odd/list.json"),
    ("rewrite", "circo/val", "--dataset-path", "world/CIRCO", "--out", "out/texts.jsonl"),
    *(("models", verb) for verb in ("list", "check", "download")),
    *(("download", name, "--no-pictures") for name in ("fashioniq", "cirr", "circo")),
    *((verb,) for verb in ("reproduce", "config", "cache", "convert-urls")),
    *(("train", verb, "--steps", "1") for verb in ("clip", "phi", "generator", "vae", "oti")),
    ("train", "clip", "world/pairs.csv", "--out", "out/clip", "--size", "tiny", "--steps", "1", "--batch-size", "4"),
    ("train", "phi", "world/captions.txt", "--clip", CLIP, "--out", "out/phi", "--steps", "1", "--batch-size", "4"),
    ("train", "phi", PICTURES, "--objective", "pic2word", "--clip", CLIP, "--out", "out/p2w", "--steps", "1"),
    ("train", "vae", PICTURES, "--out", "out/vae", "--size", "tiny", "--resolution", "32", "--steps", "1"),
    ("train", "oti", "odd/pictures", "--clip", CLIP, "--out", "out/oti", "--steps", "1"),
    (
        "train",
        "concepts",
        PICTURES,
        "--clip",
        CLIP,
        "--vocabulary",
        "world/captions.txt",
        "--out",
        "out/c.csv",
        "-k",
        "2",
    ),
    ("train", "phrases", "world/captions.txt", "--out", "out/p.jsonl", "--model", CLIP),
)


def make(home: Path) -> Path:
    """Make the scratch folder: the tiny world, and odd files."""
    import numpy as np
    import torch
    from PIL import Image

    import tiny

    scratch = home / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "odd/folder.pt").mkdir(parents=True)
    (scratch / "out").mkdir()
    tiny.make(scratch / "world")
    odd = scratch / "odd"
    (odd / "empty").touch()
    (odd / "nul").write_bytes(b"\0" * 1000)
    (odd / "deep.json").write_text("[" * 100_000)
    (odd / "list.json").write_text(json.dumps({"1": ["a", 2], "version": 3}))
    (odd / "latin.csv").write_bytes("référence,caption\n".encode("latin-1"))
    (odd / "pickle.pt").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    (odd / "loop").symlink_to("loop")
    (odd / "gone").symlink_to("nowhere")
    Image.new("L", (9000, 9000)).save(odd / "huge.png")
    (odd / "cut.png").write_bytes((odd / "huge.png").read_bytes()[:100])
    os.mkfifo(odd / "pipe")
    torch.save({"Phi": {"layers.0.weight": torch.full((80, 40), torch.nan)}}, odd / "nan.pt")
    np.savez(odd / "nan.npz", names=["a"], features=np.full((1, 40), np.nan, np.float32))
    (odd / "a\nb.json").write_text("{}")
    (odd / "ends.jsonl").write_bytes(b'{"a": 1}\r{"a": "\xff"}\n\n{"a":')
    (odd / "numbers.json").write_text('{"scores": {"a": NaN, "b": 1e999, "c": -0}, "rows": [[]], "names": [null]}')
    _odd_pictures(odd / "pictures", odd)
    captions = [*tiny.CAPTIONS, "\u202e", "a" * 5000]
    (scratch / "world/captions.txt").write_text("\n".join(captions))
    pictures = sorted((scratch / "world/shop").rglob("*.jpg"))[:8]
    rows = [f"{path.relative_to(scratch / 'world')},a thing no {i}" for i, path in enumerate(pictures)]
    (scratch / "world/pairs.csv").write_text("\n".join(["picture,caption", *rows]))
    (odd / "closed").mkdir()
    (odd / "closed.json").write_text("{}")
    for path in (scratch, *scratch.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False) if os.geteuid() == 0 else None
    for name in ("closed", "closed.json"):
        (odd / name).chmod(0)
    return scratch


def _odd_pictures(folder: Path, odd: Path) -> None:
    """Make a folder of pictures with odd names, links, pipes and what is no picture."""
    from PIL import Image

    folder.mkdir()
    for name in (
        b"a\nb.png",
        b"\xff.png",
        b"-k.png",
        b" .png",
        b"$(x).png",
        b"\x1b[31m.jpg",
        "\u00e9.PNG".encode(),
        b"a,b.webp",
    ):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            Image.new("RGB", (40, 30), (len(name) * 20, 90, 10)).save(file, "PNG")
    (folder / "self").symlink_to(".")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "empty.jpg").touch()
    os.mkfifo(folder / "pipe.png")
    (folder / "cut.png").write_bytes((odd / "cut.png").read_bytes())
    (folder / "metadata.csv").write_bytes(b"name,price\n\xff.png,nan\n,,\n")


def flags_of(verb: tuple[str, ...]) -> list[tuple[str, str, list[str]]]:
    """Return the flags that the help of a verb lists: name, kind, choices."""
    from io import StringIO

    from rich.console import Console

    from cig.cli.main import app

    console = Console(width=400, record=True, file=StringIO(), force_terminal=False)
    app.help_print(list(verb), console=console)
    text = console.export_text()
    found = []
    for line in text.splitlines():
        if match := FLAG.match(line):
            choices = CHOICES.search(line)
            found.append((match[1].split()[0], match[2] or "", choices[1].split(", ") if choices else []))
    return found


def value(kind: str, choices: list[str], rng: random.Random) -> str:
    """Draw a value of a flag: mostly of its kind, else a hostile one."""
    if rng.random() < 0.35:
        return rng.choice(HOSTILE)
    if choices:
        return rng.choice(choices)
    if kind.startswith("PATH"):
        return rng.choice(FILES)
    if kind.startswith(("INT", "FLOAT")):
        return rng.choice(["0", "1", "2", "3", "16", "0.5", "-1", "1e6"])
    return rng.choice([*FILES, *HOSTILE, "icons", "image", "sum", "red", "val"])


def draw(rng: random.Random) -> list[str]:
    """Draw a call: a plausible one with some flags more, some of its words replaced."""
    words = list(rng.choice(CALLS))
    verb = tuple(words[:2] if words[0] in ("index", "train", "models") else words[:1])
    flags = flags_of(verb)
    for _ in range(rng.randint(0, 4)):
        if not flags:
            break
        name, kind, choices = rng.choice(flags)
        words += [name, value(kind, choices, rng)] if kind else [name]
    if len(words) > len(verb) and rng.random() < 0.5:
        words[rng.randrange(len(verb), len(words))] = rng.choice([*HOSTILE, *FILES])
    return [
        word.encode("utf-8", "surrogateescape").replace(b"\0", b"").decode("utf-8", "surrogateescape") for word in words
    ]


def surroundings(rng: random.Random) -> tuple[str | None, dict[str, str]]:
    """Draw the content of a cig.toml, mostly none, and variables of the environment."""
    settings = rng.choice(SETTINGS) if rng.random() < 0.1 else None
    names = rng.sample(VARIABLES, rng.choice([1, 1, 2])) if rng.random() < 0.1 else []
    values = (word for word in iter(lambda: rng.choice([*HOSTILE, *FILES]), None) if "\0" not in word)
    return settings, dict(zip(names, values, strict=False))


def call(words: list[str], scratch: Path, said: Path, environ: dict[str, str]) -> tuple[int, float]:
    """Run a call in a fork; return its exit code (minus a signal's number) and the seconds it took."""
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        _child(words, scratch, said, environ)
    limit = 5.0 if words[0] in SERVERS else SECONDS
    for number, seconds in ((signal.SIGINT, limit), (signal.SIGKILL, SECONDS)):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), time.monotonic() - started
            time.sleep(0.02)
        os.kill(pid, number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), time.monotonic() - started


def _child(words: list[str], scratch: Path, said: Path, environ: dict[str, str]) -> None:
    code = 99
    try:
        with said.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.chdir(scratch)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
        keep = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        os.environ.clear()
        os.environ.update(keep, HOME=str(scratch / "home"), XDG_CACHE_HOME=str(scratch / "cache"), TMPDIR=str(scratch))
        os.environ.update(HF_HUB_OFFLINE="1", HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
        os.environ.update(environ)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        from cig.cli.main import main

        sys.argv = ["cig", *words]
        main(words)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def closed_to_nobody(paths: list[Path]) -> list[str]:
    """Return the folders that keep another user from these paths."""
    folders = {folder for path in paths for folder in (path, *path.parents) if folder.is_dir()}
    return sorted(str(folder) for folder in folders if not folder.stat().st_mode & 0o001)


def foreign_files(since: float, scratch: Path) -> list[str]:
    """Return what nobody wrote in the machine's shared folders since then, outside of the scratch folder."""
    found = []
    for folder in SHARED:
        for entry in os.scandir(folder):
            state = entry.stat(follow_symlinks=False)
            if (
                state.st_uid == NOBODY
                and state.st_ctime >= since
                and Path(entry.path) not in (scratch, *scratch.parents)
            ):
                found.append(entry.path)
    return found


def main() -> None:
    import cig.pipelines.run  # loaded once, not in every fork

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("home", type=Path)
    arguments.add_argument("--calls", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=1)
    asked = arguments.parse_args()
    asked.home.mkdir(parents=True, exist_ok=True)
    needed = [asked.home.resolve(), Path(sys.prefix), Path(sys.base_prefix).resolve(), Path(cig.__file__).parent]
    if os.geteuid() == 0 and (closed := closed_to_nobody(needed)):
        print(f"run as another user than root, or open these folders to nobody (chmod o+x): {', '.join(closed)}")
        raise SystemExit(3)
    sys.path[:0] = [str(Path(__file__).parents[1] / "examples"), str(Path(__file__).parents[1] / "tests")]
    scratch, rng, since = make(asked.home.resolve()), random.Random(asked.seed), time.time()
    codes: Counter[int] = Counter()
    faults: list[dict[str, object]] = []
    said = asked.home.resolve() / "said.txt"
    first = ["index", "build", PICTURES, "--out", "world/ix", "--method", "image", "--clip", CLIP, "--device", "cpu"]
    if call(first, scratch, said, {})[0]:
        raise SystemExit(said.read_text())
    for number in range(asked.calls):
        words, (settings, environ) = draw(rng), surroundings(rng)
        (scratch / "cig.toml").unlink(missing_ok=True)
        if settings is not None:
            (scratch / "cig.toml").write_text(settings)
        code, seconds = call(words, scratch, said, environ)
        text = said.read_bytes().decode("utf-8", "replace")
        codes[code] += 1
        if code not in ALLOWED or "Traceback (most recent call last)" in text:
            around = {"cig.toml": settings, "environment": environ}
            faults.append(
                {"call": number, "words": words, "code": code, "seconds": seconds, **around, "said": text[-3000:]}
            )
            print(f"{number}: {code} {words!r} {around}\n{text[-1500:]}", flush=True)
        if number % 100 == 99:
            print(f"{number + 1} of {asked.calls}, {len(faults)} faults", flush=True)
    outside = foreign_files(since, scratch)
    (asked.home / "faults.json").write_text(json.dumps(faults, indent=1))
    print(f"{asked.calls} calls, seed {asked.seed}: exit codes {dict(sorted(codes.items()))}; {len(faults)} faults")
    print(f"written elsewhere: {outside or 'nothing'}")
    raise SystemExit(bool(faults or outside))


if __name__ == "__main__":
    main()
