"""The searches that README and demo offer find what they ask for, among all icons."""

import re
from pathlib import Path

import pytest

from cig.pipelines import demo
from cig.runtime import Compute

HOME = Path(__file__).parents[2]
FIRST = {  # icon, words -> how the first hit's name begins
    ("calendar", "has a check badge"): "tabler/calendar-check.",
    ("home", "is filled"): "tabler/home-2-filled.",
}


def offered():
    """(icon, words, whether it is imagined) of every demo search that is written for people."""
    for page in ("README.md", "README.vi.md", "src/cig/pipelines/demo.py"):
        text = (HOME / page).read_text()
        searches = re.findall(r"cig demo --query (\S+) --text [\"']([^\"']+)[\"']( --imagine)?", text)
        assert len(searches) == len(re.findall(r"cig demo --query \w", text)) >= 1, page
        yield from ((icon, words, bool(imagined)) for icon, words, imagined in searches)


@pytest.mark.slow
def test_offered_searches_find_what_they_ask_for(tmp_path):
    compute = Compute(device="cpu", batch_size=256)
    for icon, words, imagine in sorted(set(offered())):
        answer = demo.ask(icon, words, tmp_path, k=1, imagine=imagine, compute=compute)
        assert answer.hits[0].name.startswith(FIRST[icon, words])
        assert bool(answer.question.pseudo_target) == imagine
        assert ('id="imagined"' in (tmp_path / "query.html").read_text()) == imagine
