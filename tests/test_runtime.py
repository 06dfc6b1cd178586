"""Seeds, devices, batches, progress, messages."""

import logging
import subprocess
import sys

import pytest
import torch

from cig import machine, runtime
from cig.cli.terminal import TerminalHandler, messages_on_stderr
from cig.errors import UsageError
from cig.runtime import number, say


def test_seeds():
    """Per query: the first 8 bytes of sha256 of "1600/cirr/val/7/0", mod 2^63."""
    assert runtime.seed_of("published", 1600, benchmark="cirr/val", query="7", attempt=2) == 1602
    assert runtime.seed_of("per-query", 1600, benchmark="cirr/val", query="7", attempt=0) == 1151054576656719478
    seeds = {
        runtime.seed_of("per-query", 1600, benchmark=name, query=query, attempt=k)
        for name in "ab"
        for query in "cd"
        for k in range(3)
    }
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_devices_and_dtypes():
    cpu = runtime.resolve_device("cpu")
    assert runtime.resolve_dtype("auto", cpu, on_gpu="float16") == torch.float32
    assert runtime.resolve_dtype("auto", torch.device("cuda"), on_gpu="float16") == torch.float16
    for wrong in ("cuda:99", "gpu"):
        with pytest.raises(UsageError, match="is not on this machine"):
            runtime.resolve_device(wrong)
    with pytest.raises(UsageError, match='Did you mean "float16"'):
        runtime.resolve_dtype("float1", cpu)


def test_a_run_on_the_cpu_is_measured_there_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with machine.measured() as cost:
        pass
    assert cost.device.startswith("cpu (")


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    """The environment may be in a checkout of the user's."""
    (tmp_path / "tracked.py").write_text("")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/runtime.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=I", "-c", "user.email=i@example.org"]
    for words in (["init", "-q"], ["add", "tracked.py"], ["commit", "-q", "-m", "tracked"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "site/runtime.py"))
    assert runtime.commit() is None
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "tracked.py"))
    assert len(runtime.commit() or "") == 40


def test_batches_are_fixed_by_position():
    assert [list(chunk) for chunk in runtime.batches(range(5), 2)] == [[0, 1], [2, 3], [4]]


def test_progress_is_a_message_without_a_terminal(monkeypatch, capsys):
    assert list(runtime.progress("ab", 2, "imagine", unit="batch")) == ["a", "b"]
    assert not capsys.readouterr().err
    monkeypatch.setattr(runtime, "MESSAGE_INTERVAL", 0)
    assert list(runtime.progress("ab", 2, "imagine", unit="batch")) == ["a", "b"]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("imagine: 1 of 2, ")
    assert second.endswith("s/batch, about 0 min left")


def test_progress_of_bytes(monkeypatch, capsys):
    counts = iter([5_000_000, 10_000_000, 20_000_000])
    done = [0]

    def beats():
        for done[0] in counts:
            yield

    monkeypatch.setattr(runtime, "MESSAGE_INTERVAL", 0)
    assert len(list(runtime.progress_bytes(beats(), lambda: done[0], lambda: 20_000_000, what="a.zip"))) == 3
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("a.zip: 5 of 20 MB, ")
    assert first.endswith("about 0 min left")
    assert last.startswith("a.zip: 20 of 20 MB, ")
    assert runtime._how_far(3_200_000_000, 20_000_000_000, 7e6) == "3,200 of 20,000 MB, 7.0 MB/s, about 40 min left"
    assert runtime._how_far(1_000_000, 0, 0.0) == "1 MB, 0.0 MB/s"


def test_control_characters_do_not_reach_the_terminal(capsys):
    say("not readable: \x1b[2J\x07.jpg\nand é\tso on \udcff")
    assert capsys.readouterr().err == "not readable: \\x1b[2J\\x07.jpg\nand é\tso on \\udcff\n"


def test_messages_go_to_the_logger(caplog):
    with caplog.at_level(logging.INFO, "cig"):
        runtime.say("100% of 3 pictures")
        runtime.warn("no picture for 2 queries")
    assert caplog.record_tuples == [
        ("cig", logging.INFO, "100% of 3 pictures"),
        ("cig", logging.WARNING, "no picture for 2 queries"),
    ]


def test_a_library_call_prints_warnings_alone():
    """Python's default without any configuration; the command line adds a handler that shows both."""
    code = "from cig import runtime; runtime.say('made 3'); runtime.warn('missing 2')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "missing 2\n")
    assert logging.getLogger("cig").propagate


def test_a_call_of_the_command_line_leaves_logging_as_it_was():
    logger = logging.getLogger("cig")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    level, logger.level = logger.level, logging.ERROR
    with messages_on_stderr():
        with messages_on_stderr():  # a call within a call
            assert [type(handler) for handler in logger.handlers] == [TerminalHandler]
        assert logger.level == logging.INFO
    assert (logger.handlers, logger.level) == ([], logging.ERROR)
    logger.level = level


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00001234, "0.000012"), (0.0456, "0.046"), (0.3, "0.3"), (3.21, "3.2"), (12.3, "12"), (123.4, "123")],
)
def test_numbers_without_powers_of_ten(value, text):
    assert number(value) == text
