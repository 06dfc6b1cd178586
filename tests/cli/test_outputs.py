"""Where results are written: looked at before the work, and never in the place of something else."""

import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from calls import run
from cig.config import user_cache
from cig.errors import UsageError
from cig.io import outputs
from cig.io.outputs import check_distinct, check_file, check_folder, write_output
from cig.runtime import resolve_device

pytestmark = pytest.mark.slow  # together they take long

FILES = {  # verb -> its flags for files
    "evaluate cirr/val --method text --clip icons": ("--json", "--rankings", "--run", "--qrels", "--report"),
    "submit cirr/test1 --submission-name a --method text --clip icons": ("--json", "--rankings", "--run", "--report"),
    "compare cirr/val": ("--json", "--report"),
    "check cirr/val": ("--json",),
    "stats cirr/val": ("--json",),
    "search --gallery . --text red": ("--json", "--html"),
    "models list": ("--json",),
    "models check": ("--json",),
    "download cirr": ("--json",),
    "convert-urls lists.txt": ("",),
    "train concepts . --clip icons --vocabulary v.txt": ("--out",),
    "train phrases concepts.txt --model m": ("--out",),
}
FOLDERS = {
    "extract cirr/val": "--text-embeddings-dir",
    "generate cirr/val": "--save-path",
    "submit cirr/test1 --submission-name a": "--output-dir",
    "run cirr/val": "--out",
    "plan cirr/val": "--out",
    "demo": "--out",
    "reproduce cirr/searle": "--out",
    "trial .": "--out",
    "train clip icons/train": "--out",
    "train vae icons/train": "--out",
    "train oti . --clip icons": "--out",
    "train phi captions.txt --objective lincir --clip icons": "--out",
}
EACH_FILE = [(verb, flag) for verb, flags in FILES.items() for flag in flags]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model's folder, and a file of weights beside it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "clip"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "phi.pt").write_bytes(b"PK weights")
    return folder


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("verb", "flag"), EACH_FILE)
def test_no_file_flag_replaces_something_else(model, tmp_path, capsys, verb, flag):
    before = content(tmp_path)
    (tmp_path / "link.json").symlink_to("phi.pt")
    for path in ("phi.pt", "link.json", "model", "model/new.json", ".", "/", ""):
        code, _, error = run(capsys, *verb.split(), *filter(None, [flag]), path)
        assert (code, (path or '""') in error) == (2, True), (path, error)
    assert content(tmp_path) == {**before, tmp_path / "link.json": b"PK weights"}


@pytest.mark.parametrize(("verb", "flag"), FOLDERS.items())
def test_no_folder_flag_takes_a_models_folder_or_a_file(model, tmp_path, capsys, verb, flag):
    before = content(tmp_path)
    for path, expected in {"model": 2, "/": 2, "": 2, "phi.pt": 1, "/dev/null": 1, "phi.pt/below": 1}.items():
        code, _, error = run(capsys, *verb.split(), flag, path)
        assert (code, (path or '""') in error) == (expected, True), (path, error)
    assert content(tmp_path) == before


def test_results_replace_results_of_their_form_only(tmp_path):
    path = tmp_path / "a.json"
    for text, allowed in {
        "": True,
        '{"benchmark": "b", "provenance": {}, "branches": []}': True,
        '{"model_type": "clip"}': False,
        "[1]": False,
        "{": False,
    }.items():
        path.write_text(text)
        if allowed:
            check_file(path, outputs.SCORES)
        else:
            with pytest.raises(UsageError):
                check_file(path, outputs.SCORES)


def test_a_training_goes_on_in_its_folder_and_takes_no_other_model(model, tmp_path):
    with pytest.raises(UsageError):
        check_folder(model, trains=True)
    (model / "log.jsonl").touch()
    check_folder(model, trains=True)
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped/tokenizer.json").touch()
    check_folder(tmp_path / "stopped", trains=True)


def test_two_results_need_two_files(tmp_path):
    (tmp_path / "link").symlink_to("a.json")
    check_distinct([tmp_path / "a.json", tmp_path / "b.json", None, "/dev/stdout", "/dev/stdout"])
    with pytest.raises(UsageError):
        check_distinct([tmp_path / "a.json", tmp_path / "link"])


def test_results_go_through_links_pipes_and_devices(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_output(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()))
    reader.start()
    check_file(tmp_path / "pipe", outputs.SCORES)
    write_output(tmp_path / "pipe", "through")
    reader.join(5)
    assert (received, stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)) == (["through"], True)
    write_output(outputs.Path("/dev/null"), "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_json_to_the_standard_output(capfd):
    code = run(capfd, "models", "list", "lincir", "--json", "/dev/stdout")
    assert code[0] == 0
    assert '"name"' in code[1]


def test_json_replaces_its_own_earlier_json(tmp_path, capsys):
    for _ in range(2):
        assert run(capsys, "models", "list", "lincir", "--json", tmp_path / "l.json")[0] == 0
    assert json.loads((tmp_path / "l.json").read_text())


def cig(*words, **environment):
    command = [sys.executable, "-m", "cig", *map(str, words)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_names_that_the_terminal_cannot_encode_are_escaped(tmp_path, encoding):
    (tmp_path / "日本.txt").write_text("B00 \t http://example.com/a.jpg\n")
    code, out, _ = cig("convert-urls", tmp_path / "日本.txt", tmp_path / "日本.json", PYTHONIOENCODING=encoding)
    assert (code, rb"\u65e5\u672c.json" in out) == (0, True)


def test_a_cache_that_cannot_be_written_is_replaced_for_the_run(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = user_cache()
    assert (folder.is_dir(), folder == user_cache(), str(tmp_path / "file") in caplog.text) == (True, True, True)


def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(UsageError) as told:
        resolve_device("xpu:7")
    assert len(str(told.value)) < 100


def test_what_a_kill_left_of_a_result_goes_with_the_next_one(tmp_path):
    from cig.io.files import _HOST
    from cig.io.outputs import write_output

    left = tmp_path / f".scores.json.{_HOST}-999999999.part"
    left.write_bytes(b"half")
    write_output(tmp_path / "scores.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
