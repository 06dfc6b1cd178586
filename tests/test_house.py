"""The package's contracts: imports point down, modules form no circle, light commands stay light, the public list."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cig

SOURCE = Path(cig.__file__).parent
FLOORS = (  # from the roof down: a folder imports from itself and from floors below
    *("__main__", "cli", "service", "pipelines", "training", "evaluation", "retrieval", "weights", "download"),
    *("methods", "generators", "benchmarks", "models", "io"),
    *("runtime", "finite", "machine", "config", "registry", "types", "errors"),
)
PUBLIC = {SOURCE / "__init__.py"}  # names every floor for type checkers; at run time it imports none
DATA = {"assets"}  # folders without code
FILES = sorted(path for path in SOURCE.rglob("*.py") if path not in PUBLIC)
DOORS = {  # library -> the only folders that import it
    "diffusers": {"generators", "training"},
    "transformers": {"models", "runtime", "training"},
}


def folder_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def name_of(path):
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def imported_by(path):
    """The module of each import in a file, those within functions and for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("cig.") in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


IMPORTS = {path: list(imported_by(path)) for path in FILES}


def test_every_folder_has_a_floor():
    assert {folder_of(path) for path in FILES} <= set(FLOORS)
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - DATA <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    floor = FLOORS.index(folder_of(path))
    for module in IMPORTS[path]:
        if module.startswith("cig."):
            target = module.split(".")[1]
            assert FLOORS.index(target) >= floor, f"{name_of(path)} imports {module} from a floor above"


def test_no_module_imports_the_public_package():
    """Its names would point up, unseen."""
    assert not [name_of(path) for path in FILES for module in IMPORTS[path] if module == "cig"]


def test_modules_form_no_circle():
    """Imports in functions and for type checkers count: a circle is hard to read wherever its imports stand."""
    graph = {name_of(path): {module.removeprefix("cig.") for module in IMPORTS[path]} for path in FILES}
    graph = {name: (targets & set(graph)) - {name} for name, targets in graph.items()}
    while leaves := {name for name, targets in graph.items() if not targets}:
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    users = {target for targets in graph.values() for target in targets}
    assert not sorted(set(graph) & users), "these import each other, or what does"


@pytest.mark.parametrize("library", DOORS)
def test_heavy_libraries_have_their_own_door(library):
    folders = {folder_of(path) for path in FILES for module in IMPORTS[path] if module.split(".")[0] == library}
    assert folders == DOORS[library]


def test_metrics_import_nothing_of_ours():
    assert not [module for module in IMPORTS[SOURCE / "evaluation/metrics.py"] if module.startswith("cig")]


def test_the_command_line_alone_prints():
    """Library functions return their results and log messages to the logger "cig"; a script's last lines may print."""
    for path in FILES:
        if folder_of(path) != "cli":
            body = [node for node in ast.parse(path.read_text()).body if "__main__" not in ast.dump(node)]
            names = {node.id for part in body for node in ast.walk(part) if isinstance(node, ast.Name)}
            assert "print" not in names, name_of(path)


def test_public_names():
    assert cig.__all__ == sorted(cig.__all__)
    for name in cig.__all__:
        docstring = getattr(cig, name).__doc__
        assert docstring, f"{name} has no docstring"
        assert not docstring.startswith(f"{name}("), f"{name} has only the signature that dataclass writes"
    with pytest.raises(AttributeError, match="it has"):
        cig.no_such_thing  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import cig",
        "import cig; dir(cig); cig.__version__; cig.Benchmark; cig.CigError",
        "from cig.cli.main import main; main(['--help'])",
        "from cig.cli.main import main; main(['evaluate', '--help'])",
    ],
)
def test_light_commands_load_no_heavy_library(code):
    heavy = "{'torch', 'transformers', 'diffusers'}"
    check = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
