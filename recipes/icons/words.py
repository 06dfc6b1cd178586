"""Writes a vocabulary of what training icons show, and captions about each name as phrases: for searle.sh.

python recipes/icons/words.py build/icons/searle      # -> vocabulary.txt, phrases.jsonl
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from random import Random

from cig.benchmarks._icons.captions import caption
from cig.benchmarks._icons.corpus import INKS, Icon, read_split
from cig.cli.terminal import messages_on_stderr
from cig.io.files import write_bytes

DRAWINGS = 3  # that a name has at least
PHRASES = 32  # a name


@messages_on_stderr()
def main() -> None:
    out, rng = Path(sys.argv[1]), Random("words")
    families: dict[str, list[Icon]] = defaultdict(list)
    for icon in read_split("train")[0]:
        families[icon.object].append(icon)
    known = {name: own for name, own in families.items() if len(own) >= DRAWINGS}
    lines = [json.dumps({"concept": name, "phrases": phrases(own, rng)}) for name, own in known.items()]
    write_bytes(out / "vocabulary.txt", "".join(f"{name}\n" for name in known).encode())
    write_bytes(out / "phrases.jsonl", "".join(f"{line}\n" for line in lines).encode())


def phrases(icons: list[Icon], rng: Random) -> list[str]:
    return [caption(rng.choice(icons), rng.choice(list(INKS)), rng) for _ in range(PHRASES)]


if __name__ == "__main__":
    main()
