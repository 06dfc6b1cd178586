"""The house's own rules: imports point down, the public list is what it says, light commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cig

SOURCE = Path(cig.__file__).parent
FLOORS = (  # from the roof down: a room imports from its own folder or from a floor below
    *("cli", "service", "pipelines", "training", "evaluation", "retrieval", "weights", "download"),
    *("methods", "generators", "benchmarks", "models", "io"),
    *("runtime", "config", "registry", "types", "errors"),
)


def imports(path):
    """(module, imported names, only for types) of every import in a file."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(n) for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test) for n in i.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", [alias.name for alias in node.names], id(node) in guarded
        elif isinstance(node, ast.Import):
            yield from ((alias.name, [], id(node) in guarded) for alias in node.names)


def files():
    return [
        path
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name not in ("__main__.py",) and path.parent != SOURCE / "x"
    ]


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    room = room_of(path)
    for module, names, _ in imports(path):
        if module.split(".")[0] != "cig" or room not in FLOORS:
            continue
        for target in [module.split(".")[1]] if "." in module else names:
            assert target not in FLOORS or FLOORS.index(target) >= FLOORS.index(room), (
                f"{room} imports {target} from a floor above"
            )


@pytest.mark.parametrize(
    ("library", "doors"),
    [
        ("diffusers", {"generators", "training"}),
        ("transformers", {"captioner", "encoders", "runtime", "towers", "training"}),
    ],
)
def test_heavy_libraries_have_their_own_door(library, doors):
    rooms = {room_of(path) for path in files() for module, _, _ in imports(path) if module.split(".")[0] == library}
    assert rooms <= doors


def test_metrics_import_nothing_of_ours():
    assert not [module for module, _, _ in imports(SOURCE / "metrics.py") if module.startswith("cig")]


def test_public_names():
    assert cig.__all__ == sorted(cig.__all__)
    for name in cig.__all__:
        told = getattr(cig, name).__doc__
        assert told, f"{name} has no docstring"
        assert not told.startswith(f"{name}("), f"{name} has none but what dataclass makes"
    with pytest.raises(AttributeError, match="it has"):
        cig.no_such_thing  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import cig",
        "from cig.cli.main import main; main(['--help'])",
        "from cig.cli.main import main; main(['evaluate', '--help'])",
    ],
)
def test_light_commands_load_no_heavy_library(code):
    heavy = "{'torch', 'transformers', 'diffusers'}"
    check = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
