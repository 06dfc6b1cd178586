"""The documentation: verbs and flags that it names exist, the pages are in the site's contents, and lines are short."""

import re
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(HOME)
    for path in (*HOME.glob("*.md"), *HOME.glob("docs/*.md"), *HOME.glob("docs/*/*.md"))
    if path.name != "CHANGELOG.md"
)
# Flags of scripts in recipes/ and benchmarks/, and of published ones, on lines that do not name the script.
SCRIPTS = {"--at", "--pictures", "--resume", "--sdxl", "--sheet", "--smoke"}
OTHERS = re.compile(r"\b(git|pip|ssh|pytest|python|docker|curl|openssl|npx|accelerate|torchrun)\b")


@pytest.fixture(scope="module")
def helps():
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    sys.path.insert(0, str(HOME / "docs"))
    try:
        import _generate
    finally:
        sys.path.pop(0)
    return _generate.command_line()


def test_flags_exist(helps):
    flags = set(re.findall(r"--[a-z0-9][a-z0-9-]*", helps)) | SCRIPTS
    unknown = {}
    for page in PAGES:
        text = (HOME / page).read_text(encoding="utf-8")
        for line in text.splitlines():
            if OTHERS.search(line):
                continue
            for flag in re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9_-]*", line):
                if flag.replace("_", "-") not in flags:
                    unknown.setdefault(flag, set()).add(str(page))
    assert unknown == {}


def test_verbs_exist(helps):
    verbs = {tuple(line.removeprefix("## cig ").split()) for line in helps.splitlines() if line.startswith("## cig ")}
    unknown = {}
    for page in PAGES:
        for line in (HOME / page).read_text(encoding="utf-8").splitlines():
            match = re.match(r"    (?:\$ |\.venv/bin/)?cig ([a-z-]+)", line)
            if match and (match[1],) not in verbs:
                unknown.setdefault(match[1], set()).add(str(page))
    assert unknown == {}


def test_every_page_is_in_the_contents():
    contents = (HOME / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to("docs").as_posix() for path in PAGES if path.parts[0] == "docs"}
    assert {page for page in pages if f": {page}" not in contents} == set()


def shell_lines(page):
    """The lines of a page that call cig, continued ones joined, without comments."""
    text = (HOME / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if match := re.match(r"    (?:\$ |\.venv/bin/)?cig (.*)", line):
            yield match[1].partition("  #")[0]


def test_shown_lines_have_flags_of_their_verb(helps):
    sections = re.split(r"^## cig (.+)$", helps, flags=re.MULTILINE)
    flags = {
        verb: set(re.findall(r"--[a-z0-9][a-z0-9-]*|(?<=[\s(])-[a-z]\b", text))
        for verb, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    wrong, checked = [], 0
    for page in PAGES:
        for line in shell_lines(page):
            checked += 1
            words = re.sub(r"\"[^\"]*\"|'[^']*'", "X", line).split()
            verb = " ".join(words[:2]) if " ".join(words[:2]) in flags else words[0]
            given = [word.partition("=")[0].replace("_", "-") for word in words if re.match(r"--?[a-z]", word)]
            if verb != "config":  # takes those of another verb
                wrong += [(str(page), line, flag) for flag in given if flag not in flags[verb] | {"--debug"}]
    assert wrong == []
    assert checked > 100
