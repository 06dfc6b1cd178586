"""Prompts: `a photo of $ that {caption}`, with a pseudo-word in the place of $."""

from __future__ import annotations

from collections.abc import Sequence

from cig.errors import UsageError

PROMPT = "a photo of $ that {caption}"


BARE_PROMPT = "a photo of $"  # of a query without a caption


def prompt(caption: str, template: str = PROMPT) -> str:
    return template.replace("{caption}", caption)


def join_captions(captions: Sequence[str]) -> tuple[str, ...]:
    """How several captions become one: `c1 and c2` and, reversed, `c2 and c1`; one is left as it is, none is none."""
    if len(captions) < 2:
        return tuple(captions)
    stripped = [caption.strip(".?, ") for caption in captions]
    return " and ".join(stripped), " and ".join(reversed(stripped))


def prompts(captions: Sequence[str], template: str = PROMPT, bare: str | None = BARE_PROMPT) -> tuple[str, ...]:
    """The prompt of each order of a query's captions; `bare` where it has none.

    Raises:
        UsageError: there is no caption and no bare prompt.
    """
    made = tuple(prompt(text, template) for text in join_captions(captions))
    if not made and bare is None:
        raise UsageError("a query without a caption leaves nothing to search with; ask a method that looks at pictures")
    return made or (bare or "",)
