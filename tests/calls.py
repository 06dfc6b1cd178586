"""The command line, called in this process."""

import pytest

from cig.cli.main import main


def run(capsys, *words):
    """(exit code, stdout, stderr)"""
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return done.value.code or 0, shown.out, shown.err
