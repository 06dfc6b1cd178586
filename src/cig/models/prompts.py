"""Build prompts: `a photo of $ that {caption}`, in which a pseudo-word replaces the `$`."""

from __future__ import annotations

from collections.abc import Sequence

from cig.errors import UsageError

PROMPT = "a photo of $ that {caption}"
BARE_PROMPT = "a photo of $"  # for a query without a caption
NAMED = {"pic2word": "a photo of $ , {caption}"}  # Pic2Word's own, of CIRR and, with two captions, of FashionIQ


def read_template(text: str) -> str:
    """Return a template by its name or text; raise UsageError unless it has a word's and a caption's place."""
    template = NAMED.get(text, text)
    if "$" not in template or "{caption}" not in template:
        raise UsageError(
            f'the prompt "{text}" needs $, where the pseudo-word stands, and {{caption}}: "{PROMPT}"; there is also '
            f"{', '.join(NAMED)}, by name"
        )
    return template


def prompt(caption: str, template: str = PROMPT) -> str:
    return template.replace("{caption}", caption)


def join_captions(captions: Sequence[str]) -> tuple[str, ...]:
    """Join several captions in both orders, `c1 and c2` and `c2 and c1`; leave a single caption as it is."""
    if len(captions) < 2:
        return tuple(captions)
    stripped = [caption.strip(".?, ") for caption in captions]
    return " and ".join(stripped), " and ".join(reversed(stripped))


def prompts(captions: Sequence[str], template: str = PROMPT, bare: str | None = BARE_PROMPT) -> tuple[str, ...]:
    """Build the prompt for each order of a query's captions, or the bare prompt for a query without captions.

    Raises:
        UsageError: there is no caption and no bare prompt.
    """
    texts = tuple(prompt(text, template) for text in join_captions(captions))
    if not texts and bare is None:
        raise UsageError("a query without a caption leaves nothing to search with; ask a method that looks at pictures")
    return texts or (bare or "",)
