"""Text of others in Markdown: read as text, and no less readable than it was."""

import re

import pytest

from cig.io.markdown import escape, fenced


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("[here](https://evil.example)", r"\[here](https:\//evil.example)"),
        ("![x](http://evil.example/pixel.png)", r"!\[x](http:\//evil.example/pixel.png)"),
        ("[1](x) [1][x] [1]: x", r"\[1](x) \[1]\[x] \[1]: x"),
        ("<img src=x onerror=alert(1)> &lt;", "&lt;img src=x onerror=alert(1)> &amp;lt;"),
        ("*a* **b** _c_ __d__ ~~e~~ `f` $g$", r"\*a\* \*\*b\*\* \_c\_ \_\_d\_\_ \~\~e\~\~ \`f\` \$g\$"),
        ("a | b \\", r"a \| b \\"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("> quote", r"\> quote"),
        ("12. item", r"12\. item"),
        ("---", r"\---"),
        ("two\nlines\r\n\n# three", "two lines # three"),
        ("www.evil.example", r"www\.evil.example"),
    ],
)
def test_markup_becomes_text(text, escaped):
    assert escape(text) == escaped


@pytest.mark.parametrize(
    "text",
    [
        "45.83 [33.33, 58.33]",
        "-3.20 [-5.0, +1.2]",
        "recall@10",
        "dev-151-0-img0",
        "a_b_c.png",
        "#5 of 7",
        "1.5 s",
        "+3",
    ],
)
def test_numbers_and_names_stay_as_they_are(text):
    assert escape(text) == text


def test_no_line_ends_the_block():
    lines = ["```", "# heading", "`````"]
    assert fenced(lines) == ["``````", *lines, "``````"]
    assert fenced(["a"], "json") == ["```json", "a", "```"]
    assert not any(re.fullmatch("`{6,}", line) for line in lines)
