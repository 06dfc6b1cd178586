"""The exception tree. Each error says what was asked, what there is, and what to type next.

CigError                  exit code 1
├── UsageError            2  a wrong call: a bad flag value, flags that exclude each other
│   ├── NotFoundError     2  a path, a name or weights that are not there
│   │   └── WrongNameError 2 a name that is none of the choices
│   ├── MismatchError     2  things that do not fit: a CLIP and a phi, a folder and new settings
│   └── WrongTypeError    2  an argument of another type, in Python; also a TypeError
├── InputError            1  a file that cannot be read: annotations, embeddings, checkpoints
│   ├── NotFiniteError    1  numbers that are not finite, made by a model
│   └── PictureError      1  a picture that cannot be decoded or is refused
│       └── PixelsError   1  one with too many pixels, or none
├── OutputError           1  a file that cannot be written: a full disk, a folder without permission
├── ShortMemoryError      1  models that do not fit into the memory that is free
└── IncompleteError       1  a run that could not do all of its queries (what was done is kept)
"""

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence

COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
UNUSABLE_ADVICE = re.compile(
    r"weights_only|can still be loaded|two options|low_cpu_mem_usage|ignore_mismatched_sizes|repo_type"
    r"|trust_remote_code|above report|report above|see also|file an issue"
)


class CigError(Exception):
    """An error that the user can fix; its message says how."""

    exit_code = 1


class UsageError(CigError):
    exit_code = 2


class NotFoundError(UsageError):
    pass


class WrongNameError(NotFoundError):
    pass


class MismatchError(UsageError):
    pass


class WrongTypeError(UsageError, TypeError):
    pass


class InputError(CigError):
    pass


class PictureError(InputError):
    pass


class PixelsError(PictureError):
    pass


class NotFiniteError(InputError):
    """A model made numbers that are not finite.

    Attributes:
        rows: of its batch, which have such numbers.
    """

    def __init__(self, model: str, dtype: str, rows: Sequence[int], *, names: Sequence[str] = ()) -> None:
        self.model, self.dtype, self.rows, self.names = model, dtype.removeprefix("torch."), rows, names
        what = some((plain(name, 100) for name in names), 5) or f"{len(rows)} inputs"
        hint = "try --dtype float32, and if that does not help, another copy of its files"
        hint = "its files may be damaged; get another copy" if self.dtype == "float32" else hint
        super().__init__(f"{model} makes numbers that are not finite of {what}, in {self.dtype}: {hint}")


class OutputError(CigError):
    pass


class ShortMemoryError(CigError):
    pass


class IncompleteError(CigError):
    pass


def check_type(value: object, kind: type | tuple[type, ...], *, name: str, wanted: str) -> None:
    """Raise WrongTypeError unless an argument is of a type.

    Args:
        name: the argument's.
        wanted: what the argument should be, and how to get one.
    """
    if not isinstance(value, kind):
        raise WrongTypeError(f"{name} should be {wanted}, not {reprlib.repr(value)} ({type(value).__name__})")


def check_members(value: object, members: Iterable[str], *, name: str, wanted: str) -> None:
    """Raise WrongTypeError unless an argument has the members of a protocol, whatever its class."""
    if isinstance(value, type) or not all(hasattr(value, member) for member in members):
        raise WrongTypeError(f"{name} should be {wanted}, not {reprlib.repr(value)} ({type(value).__name__})")


def at_least_1(flag: str, value: int) -> None:
    """Raise UsageError unless a flag's value is 1 or more."""
    if value < 1:
        raise UsageError(f"{flag} {value}: at least 1")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ' Did you mean "val"? Choose from: train, val.', the end of an error about a wrong name."""
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=1)
    guess = f' Did you mean "{near[0]}"?' if near else ""
    return f"{guess} Choose from: {', '.join(choices)}."


def reason(error: BaseException) -> str:
    """Return the first sentence of a library's message, safe for a terminal; the error's class if there is none.

    A line that ends with a colon is joined with the next one. Colours are removed, and so is advice that the reader
    cannot follow here: how to let a pickle run, and reports that were printed elsewhere.
    """
    text = f"nothing is called {error}" if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in COLOURS.sub("", text).splitlines() if line.strip()]
    end = next((i for i, line in enumerate(lines) if not line.endswith(":")), len(lines)) + 1
    sentences = re.split(r"(?<=[.!?;])\s+", " ".join(lines[:end]).rstrip(":"))
    kept = " ".join(sentence for sentence in sentences if sentence and not UNUSABLE_ADVICE.search(sentence))
    return plain(kept or type(error).__name__, 300)


def plain(text: str, most: int) -> str:
    """Return the first `most` letters of untrusted text, with "?" for control characters and lone surrogates."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:most])


def printable(text: str, kept: str = "") -> str:
    """Escape what a terminal would obey, such as colours or a cleared screen in the name of a file.

    Args:
        kept: control characters that stay, such as newlines.
    """
    return "".join(
        letter if letter.isprintable() or letter in kept else letter.encode("unicode_escape").decode()
        for letter in text
    )


def some(names: Iterable[str], most: int = 20) -> str:
    """Join the first names of a list, and count the rest: "a, b and 3 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
