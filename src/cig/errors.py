"""The exception tree. Each error says what was asked, what there is, and what to type next.

CigError                  exit code 1
├── UsageError            2  a wrong call: a bad flag value, flags that exclude each other
│   ├── NotFoundError     2  a path, a name or weights that are not there
│   └── MismatchError     2  things that do not fit: a CLIP and a phi, a folder and new settings
├── InputError            1  a file that cannot be read: annotations, embeddings, checkpoints
│   └── PictureError      1  a picture that cannot be decoded or is refused
│       └── PixelsError   1  one with too many pixels, or none
├── OutputError           1  a file that cannot be written: a full disk, a folder without permission
└── IncompleteError       1  a run that could not do all of its queries (what was done is kept)
"""

import difflib
from collections.abc import Iterable


class CigError(Exception):
    """Anything that a person can mend; its message says how."""

    exit_code = 1


class UsageError(CigError):
    exit_code = 2


class NotFoundError(UsageError):
    pass


class MismatchError(UsageError):
    pass


class InputError(CigError):
    pass


class PictureError(InputError):
    pass


class PixelsError(PictureError):
    pass


class OutputError(CigError):
    pass


class IncompleteError(CigError):
    pass


def did_you_mean(asked: str, choices: Iterable[str]) -> str:
    """' Did you mean "val"? Choose from: train, val.', to end an error about a wrong name."""
    choices = list(choices)
    near = difflib.get_close_matches(asked, choices, n=1)
    guess = f' Did you mean "{near[0]}"?' if near else ""
    return f"{guess} Choose from: {', '.join(choices)}."


def reason(error: BaseException) -> str:
    """The first line of what a library said, fit for a terminal; the error's kind where it said nothing."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return plain(line, 300)


def plain(text: str, most: int) -> str:
    """The first letters of what a stranger wrote, with nothing in it that a terminal obeys or cannot show."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:most])


def printable(text: str, kept: str = "") -> str:
    """For a terminal, with strangers' names in it: what a terminal obeys is escaped, but for what is kept."""
    fit = (own if own.isprintable() or own in kept else own.encode("unicode_escape").decode() for own in text)
    return "".join(fit)


def some(names: Iterable[str], most: int = 20) -> str:
    """The first names of a list, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
