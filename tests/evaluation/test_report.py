"""A report as text, JSON and Markdown."""

from dataclasses import replace

from cig.evaluation import report
from cig.types import Report


def test_report_as_text_and_json():
    one = Report(
        "cirr/val", {"gallery": "all"}, {"": {"recall@1": 33.333}}, {"": {"recall@1": (0.0, 66.667)}}, {}, {}, {}
    )
    assert report.to_text(one).splitlines() == ["cirr/val  score", "recall@1   33.33 [0.00, 66.67]"]
    lost = replace(one, missing={"targets": {"": ["7", "9"]}})
    told = "queries whose target, or one of them, is missing (without any they score 0): 2 (7, 9)"
    assert report.to_text(lost).splitlines()[-1] == told
    written = report.to_json(one, "searle", [{"name": "reference"}], provenance={"seconds": 1})
    assert " ".join(written) == (
        "benchmark protocol method branches scores intervals per_query missing counts changes provenance"
    )


def test_report_as_markdown():
    scores, intervals = {"dress": {"recall@10": 33.333}}, {"dress": {"recall@10": (0.0, 66.667)}}
    moved = {"gained": 2, "lost": 1, "unchanged": 0, "worse_by_more_than_10": 25.0}
    one = Report("fashioniq/val", {"gallery": "full"}, scores, intervals, {}, {}, {}, {"dress": moved})
    branches = [{"name": "a | b\n<i>\ud800", "weight": 0.7, "source": "as published"}]
    provenance = {"commit": None, "versions": {"torch": "2"}, "models": {"clip": {"sha256": "ab", "licence": "MIT"}}}
    assert report.to_markdown(one, "searle", branches, provenance=provenance).splitlines() == [
        "# fashioniq/val: searle",
        "",
        "| measure | dress |",
        "| --- | --- |",
        "| Recall@10 | 33.33 [0.00, 66.67] |",
        "",
        "In percent, with 95% bootstrap intervals over queries.",
        "",
        "| branch | weight | source |",
        "| --- | --- | --- |",
        "| a \\| b &lt;i>? | 0.70 | as published |",
        "",
        "- dress: ranks of targets with pseudo-targets: 2 rose, 1 fell, 0 stayed; 25.0% fell by more than 10 ranks",
        "- gallery: full",
        "- versions: torch 2",
        "- model clip: sha256 ab, licence MIT",
    ]
    hidden = replace(one, scores={}, intervals={}, changes={})
    assert "measure" not in report.to_markdown(hidden, "searle", branches, provenance={})
