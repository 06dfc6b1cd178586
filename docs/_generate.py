"""Pages of the site that are made from the code: the command line's flags, the HTTP API; called by mkdocs (mkdocs.yml).

Links to files of the repository outside of docs/ become their names: the site does not hold these files.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any

from mkdocs.structure.files import File, Files

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:src|benchmarks|examples|recipes|tests)/[^)]*\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    for path, content in (("reference/cli.md", command_line()), ("reference/http.md", http())):
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    return OUTSIDE.sub(r"`\1`", markdown)


def command_line() -> str:
    """Return the help of every verb, as the shell prints it."""
    from cig.cli.main import app

    lines = ["# Command line", "", "The text of `cig VERB --help`, for every verb.", ""]
    for name in sorted(name for name in app if not name.startswith("-")):
        command = app[name]
        verbs = [[name]] + [[name, sub] for sub in sorted(command) if not sub.startswith("-")]
        for verb in verbs:
            lines += [f"## cig {' '.join(verb)}", "", "```text", help_of(app, verb), "```", ""]
    return "\n".join(lines)


def help_of(app: Any, verb: list[str]) -> str:
    from rich.console import Console

    console = Console(width=98, force_terminal=False, color_system=None, record=True, file=io.StringIO())
    app.help_print(verb, console=console)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()).strip()


def http() -> str:
    """Return the routes of `cig serve`, from its OpenAPI description."""
    from cig.service.access import Access
    from cig.service.app import make_app
    from cig.service.running import Running
    from cig.service.settings import Serving

    app = make_app(Running(Serving()), Access())
    description = _application(app).openapi()
    lines = [
        "# HTTP",
        "",
        "The routes of `cig serve`; a running service has the whole description at `/openapi.json`.",
        "",
    ]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            lines += [
                f"## {method.upper()} `{path}`",
                "",
                operation.get("summary", ""),
                "",
                operation.get("description", ""),
                "",
            ]
            lines += _parameters(operation)
            lines += ["| status | meaning |", "|---|---|"]
            lines += [f"| {status} | {answer['description']} |" for status, answer in operation["responses"].items()]
            lines += ["", *_example(operation)]
    return "\n".join(lines)


def _application(app: Any) -> Any:
    """Return the FastAPI application behind its checks."""
    while not hasattr(app, "openapi"):
        app = app.app
    return app


def _parameters(operation: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{one['name']}` | {one['in']} | {one.get('description', '')} |" for one in operation.get("parameters", [])
    ]
    return ["| parameter | in | meaning |", "|---|---|---|", *rows, ""] if rows else []


def _example(operation: dict[str, Any]) -> list[str]:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if example := content.get("example") or next(iter(content.get("examples", {}).values()), {}).get("value"):
            return ["```json", json.dumps(example, indent=2), "```", ""]
    return []
