"""Exact wording, in one place: tests/messages.json has what users read, by id.

Other tests assert the kind of an error and what it names; here a change of words shows as one changed line.
`pytest --update-messages` rewrites the texts of the tests that it runs.
"""

import fcntl
import json
from pathlib import Path

FILE = Path(__file__).with_name("messages.json")


class Messages:
    """Compares texts with the snapshot, or writes them there.

    Args:
        update: write instead of comparing.
        folder: the test's own, which the snapshot has as `TMP`.
    """

    def __init__(self, update: bool, folder: Path) -> None:
        self.update, self.folder = update, folder

    def __call__(self, name: str, text: object) -> None:
        """Assert that the message of this id is this text, be it a string or an exception."""
        text = str(text).replace(str(self.folder), "TMP")
        if self.update:
            write(name, text)
        known = json.loads(FILE.read_text(encoding="utf-8"))
        assert name in known, f"no message {name} in {FILE.name}; write it with pytest --update-messages"
        assert text == known[name]


def write(name: str, text: str) -> None:
    with FILE.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # workers write in turn
        known = {**json.load(file), name: text}
        file.seek(0)
        file.truncate()
        file.write(json.dumps(dict(sorted(known.items())), ensure_ascii=False, indent=1) + "\n")
