"""The package's readability contracts: names, sizes of files and functions, positional parameters."""

import ast
from collections import defaultdict
from pathlib import Path
from statistics import median, quantiles

import pytest

import cig

SOURCE = Path(cig.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
BANNED = {"own", "told", "about", "there", "place", "found", "known", "asked", "mine"}  # each once stood for everything
MOST_LINES = 350  # of a file
MEDIAN_LINES, TYPICAL_LINES, MOST_FUNCTION_LINES = 8, 30, 60  # the middle, nine of ten, and every one outside of cli
MOST_POSITIONAL = 3
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def label(path):
    return str(path.relative_to(SOURCE))


def outside_of_cli():
    """The command line's functions are its flags: their length and parameters are those of the verbs."""
    return [path for path in FILES if path.relative_to(SOURCE).parts[0] != "cli"]


def functions(path):
    """Every function and method of a file, nested ones included."""
    return [node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of(function):
    return function.end_lineno - function.lineno + 1


def identifiers(tree):
    """(line, name) of variables, parameters, attributes, keyword arguments, functions, classes and aliases."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.AsyncFunctionDef(name=name) | ast.arg(arg=name) | ast.keyword(arg=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
                yield node.lineno, name
            case ast.alias(asname=name):
                yield node.lineno, name


@pytest.mark.parametrize("path", FILES, ids=label)
def test_names_are_the_nouns_of_things(path):
    banned = [f"{label(path)}:{line} {name}" for line, name in identifiers(TREES[path]) if name in BANNED]
    assert not banned, "name each by what it holds"


def test_no_two_classes_share_a_name():
    classes = defaultdict(list)
    for path in FILES:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{label(path)}:{node.lineno}")
    assert not {name: places for name, places in classes.items() if len(places) > 1}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_functions_are_short():
    lengths = [lines_of(function) for path in FILES for function in functions(path)]
    assert median(lengths) <= MEDIAN_LINES
    assert quantiles(lengths, n=10)[-1] <= TYPICAL_LINES


@pytest.mark.parametrize("path", outside_of_cli(), ids=label)
def test_no_function_is_long(path):
    long = {function.name: lines_of(function) for function in functions(path)}
    assert not {name: lines for name, lines in long.items() if lines > MOST_FUNCTION_LINES}


PUBLIC = (
    "generators/_generate.py imagine",
    "models/clip.py load_clip",
    "models/composer.py load_composer",
    "pipelines/published_datasets.py __init__",
    "retrieval/rank.py search",
)


@pytest.mark.parametrize("path", outside_of_cli(), ids=label)
def test_at_most_three_parameters_are_positional(path):
    """Beyond three, an argument says its name at the call. `self` and `cls` are not counted.

    Python and torch fix the parameters of methods such as `__exit__`, but not of constructors. Public functions keep
    the fourth that they had: people call them so.
    """
    many = {}
    for function in functions(path):
        if function.name.startswith("__") and function.name != "__init__":
            continue
        if f"{label(path)} {function.name}" in PUBLIC:
            continue
        names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        if len(names) - (names[:1] in (["self"], ["cls"])) > MOST_POSITIONAL:
            many[f"{label(path)}:{function.lineno} {function.name}"] = names
    assert not many
