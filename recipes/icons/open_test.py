"""Opens icons/test: scores methods on its targets, and logs in docs/results.md that it did. The only way to them.

    python recipes/icons/open_test.py "why it is opened" --methods image/icons sum/icons lincir/icons

What is chosen (weights, objectives, steps, guidance) is chosen on icons/val before. The log is written first: an
opening that fails is an opening, too.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from cig.benchmarks.icons import read
from cig.io.feature_cache import FeatureCache
from cig.io.files import write_bytes
from cig.pipelines import compare
from cig.pipelines._comparison import compare_methods
from cig.retrieval.requests import Comparing, Searching
from cig.runtime import Compute, commit

RESULTS = Path(__file__).parents[2] / "docs" / "results.md"
HEADING = "## Openings of icons/test"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("why")
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--limit", type=int, help="the first so many queries")
    arguments = parser.parse_args()
    log(arguments.results, f"{arguments.why}; {', '.join(arguments.methods)}")
    methods = tuple(Searching(method=name) for name in arguments.methods)
    part = read("test", arguments.limit)
    contest = compare_methods((part,), Comparing(methods), compute=Compute(batch_size=256), cache=FeatureCache(None))
    print(compare.to_text(contest))


def log(results: Path, line: str) -> None:
    """Appends a dated line with the commit under the heading of openings, which ends the file."""
    text = results.read_text() if results.exists() else f"# Results\n\n{HEADING}\n"
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    write_bytes(results, f"{text.rstrip()}\n- {when} UTC, commit {commit() or 'unknown'}: {line}\n".encode())


if __name__ == "__main__":
    main()
