"""The command line: the published lines, both spellings of flags, and errors that say what to type next."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from unittest.mock import Mock

import pytest

from calls import run
from cig import config
from cig.cli.main import app, main
from cig.io import files
from cig.runtime import Interrupted

# The published command lines, with only the script's name replaced, from an empty folder

PUBLISHED = {
    "extract --dataset cirr --text_embeddings_dir ./outputs/embeddings/cirr_test/": [
        "models/phi_best.pt",
        "models/phi_best_giga.pt",
        "drive folder",
        "datasets/CIRR is not a folder",
    ],
    "extract --dataset fashioniq --text_embeddings_dir e": ["models/phi_best.pt", "datasets/FashionIQ"],
    "generate --text_embeddings_dir ./outputs/embeddings/cirr_test/ --dataset_dir ./datasets/CIRR --model_path "
    "./models/sdxl_checkpoint/ --save_path ./outputs/generated_images/cirr/ --batch_size 4 --num_workers 4 "
    "--height 512 --width 512 --steps 50 --seed 1600 --brightness_thresh 10.0 --max_retries 5 --cache_dir ./ "
    "--vae_repo madebyollin/sdxl-vae-fp16-fix --sdxl_repo stabilityai/stable-diffusion-xl-base-1.0": [
        "models/sdxl_checkpoint/unet",
        "config.json and diffusion_pytorch_model.safetensors",
        "outputs/embeddings/cirr_test is not a folder of embeddings",
        "datasets/CIRR is not a folder",
    ],
    "submit --submission-name cirr_b32 --eval-type searle --dataset cirr --dataset-path P --generated-image-dir G": [
        "get SEARLE_ViT-B32.pt from https://github.com/miccunifi/SEARLE/releases/download/weights/SEARLE_ViT-B32.pt",
        "put it at models/SEARLE_ViT-B32.pt",
        "P is not a folder",
    ],
    "submit --submission-name n --eval-type phi --exp-name e --phi-checkpoint-name phi_20.pt --dataset circo "
    "--dataset-path P --preprocess-type clip": ["data/phi_models/e/hyperparameters.json is not there"],
}


@pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: line[:40])
def test_published_lines_end_in_what_to_put_where(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *line.split())
    assert code == 2
    for words in PUBLISHED[line]:
        assert words in err
    assert "Traceback" not in err


def test_published_line_with_the_data_there(world, tmp_path, monkeypatch, capsys):
    """Only the weights are missing: only they are named, with the default folders."""
    monkeypatch.chdir(tmp_path)
    os.symlink(world, tmp_path / "datasets")
    code, _, err = run(capsys, "extract", "--dataset", "cirr", "--text_embeddings_dir", "e")
    assert (code, err.count("is not there")) == (2, 2)
    assert "datasets" not in err


# Names of benchmarks


@pytest.mark.parametrize(
    "line", ["cirr/test1", "cirr --split test", "--dataset cirr --split test1", "--dataset cirr/test"]
)
@pytest.mark.parametrize("flag", ["--dataset-path", "--dataset_path", "--dataset-dir", "--dataset_dir"])
def test_one_benchmark_in_every_spelling(world, capsys, line, flag):
    code, _, err = run(capsys, "evaluate", *line.split(), flag, world, "--method", "image")
    assert (code, "the targets of cirr/test1 are hidden; use `cig submit`" in err) == (2, True)


# Wrong calls


WRONG = [
    "evaluate",
    "evaluate cirr/val --dataset circo",
    "evaluate cirr/val --split test",
    "evaluate cir/val",
    "evaluate cirr/vla",
    "evaluate cirr --method serle",
    "evaluate cirr --methd searle",
    "evaluate cirr --clip x",
    "evaluate cirr --gallery val --method image",
    "evaluate cirr --fusion-weight 0.5",
    "evaluate cirr --fusion-weight 1.5 --generated-image-dir x",
    "evaluate cirr --batch-size 0",
    "submit fashioniq/test --submission-name x",
    "submit cirr --submission-name ../x",
    "submit cirr",
    "submit cirr --submission-name=",
    "generate cirr --seed 99999999999999999999",
    "generate cirr --height 500 --width 513",
    "generate cirr --steps 0",
    "run cirr --max-retries=-1",
    "run cirr --brightness-thresh nan",
    "extract --categories hat --dataset fashioniq",
    "serach",
    "extract --shard 0/4",
    "extract --shard 5/4",
    "generate --shard two",
    "run cirr --search-clip x",
    "run cirr --search-batch-size 0",
    "run cirr --method serle",
    "evaluate cirr --report a.pdf",
    "cache nowhere",
    "config evaluate --methd x",
]


@pytest.fixture
def beside_the_data(world, tmp_path, monkeypatch):
    """The working folder has datasets/ and models/ where they are looked for."""
    monkeypatch.chdir(tmp_path)
    os.symlink(world, tmp_path / "datasets")
    os.symlink(world / "models", tmp_path / "models")


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_call_exits_2_with_a_hint(beside_the_data, capsys, message, line):
    code, out, err = run(capsys, *line.split())
    assert code == 2
    message(f"$ cig {line}", unboxed(out + err))


def unboxed(text):
    """The words in a frame of cyclopts, whose width is that of the terminal."""
    return " ".join(re.sub("[╭─╮│╰╯]", " ", text).split()) if "╭" in text else text


def test_a_device_that_is_not_there_exits_2_with_its_flag(beside_the_data, capsys):
    code, _, err = run(capsys, "evaluate", "cirr", "--method", "image", "--device", "cuda:9")
    assert code == 2
    assert "--device" in err
    assert "Traceback" not in err


def test_what_could_not_be_drawn_is_refused(world, tmp_path, capsys):
    models = world / "models"
    (tmp_path / "9996.pt").write_bytes(b"")
    line = [
        "generate",
        "cirr",
        "--dataset-path",
        world,
        "--text-embeddings-dir",
        tmp_path,
        "--model-path",
        models / "sdxl",
    ]
    code, _, err = run(capsys, *line, "--height", "60", "--save-path", tmp_path / "out")
    assert (code, "multiples of 8" in err) == (2, True)
    code, _, err = run(capsys, *line, "--image-guidance-scale", "0.5", "--save-path", tmp_path / "out")
    assert (code, "--image-guidance-scale 0.5: 1 or more" in err) == (2, True)


def test_a_folder_without_a_single_pseudo_target(world, tmp_path, capsys):
    line = ["evaluate", "cirr", "--dataset-path", world, "--method", "image", "--clip", world / "models/clip-small"]
    code, _, err = run(capsys, *line, "--generated-image-dir", tmp_path)
    assert code == 2
    assert "no pseudo-target of cirr/val; expected names such as 09996.png" in err


def test_datasets_without_pictures(world, tmp_path, capsys):
    os.symlink(world / "CIRR/cirr", tmp_path / "cirr")
    pair = ["--clip", world / "models/clip-small", "--phi", world / "models/phi-small.pt", "--dataset-path", tmp_path]
    code, _, err = run(capsys, "evaluate", "cirr", *pair)
    assert (code, "no picture of the gallery of cirr/val was found (60 are listed)" in err) == (2, True)
    code, _, err = run(capsys, "extract", "cirr", *pair, "--phi2", world / "models/phi-large.pt")
    assert (code, "no reference of cirr/test1 was found" in err) == (2, True)


# Failed runs


@pytest.fixture
def broken(world, tmp_path):
    """CIRR whose first reference of test1 and val is gone, the rest by links."""
    home = tmp_path / "CIRR"
    home.mkdir()
    os.symlink(world / "CIRR/cirr", home / "cirr")
    for split, folder in (("test1", "test1"), ("val", "dev")):
        entries = json.loads((world / f"CIRR/cirr/captions/cap.rc2.{split}.json").read_text())
        (home / folder).mkdir()
        for path in (world / "CIRR" / folder).iterdir():
            if path.stem != entries[0]["reference"]:
                os.symlink(path, home / folder / path.name)
    return home


@pytest.mark.slow
def test_missing_references(world, broken, tmp_path, capsys):
    pair = ["--clip", world / "models/clip-small", "--phi", world / "models/phi-small.pt", "--dataset-path", broken]
    code, out, err = run(capsys, "evaluate", "cirr", *pair, "--json", tmp_path / "a.json")
    assert code == 1
    assert "queries that could not run and score 0: 1\n  cirr/val/9996: no picture for the reference" in err
    assert "recall@1" in out, "the scores are shown all the same"
    assert (tmp_path / "a.json").exists()
    submit = ["submit", "cirr", *pair, "--submission-name", "x", "--output-dir", tmp_path / "out"]
    code, _, err = run(capsys, *submit)
    assert (code, (tmp_path / "out").exists(), "--allow-missing" in err) == (1, False, True)
    assert run(capsys, *submit, "--allow-missing")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["subset_x.json", "x.json", "x.missing.json"]
    assert run(capsys, *[world if word == broken else word for word in submit])[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["subset_x.json", "x.json"]


def test_unwritable_output(world, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    pair = ["--clip", world / "models/clip-small", "--method", "image", "--dataset-path", world]
    code, _, err = run(capsys, "evaluate", "cirr", *pair, "--json", tmp_path / "file/a.json")
    assert (code, "cannot be made" in err) == (1, True)


def test_debug_shows_the_traceback(capsys):
    from cig.errors import UsageError

    with pytest.raises(UsageError):
        main(["evaluate", "--debug"])


# What stands for a flag that is not given


def in_force(capsys, *words):
    """name -> (value, where from), as `cig config` shows it"""
    code, out, err = run(capsys, "config", *words)
    assert code == 0, err
    return {line.split()[0]: tuple(line.split(maxsplit=2)[1:]) for line in out.splitlines()}


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["evaluate", "cirr", "--clip", "c"]
    assert in_force(capsys, *line)["search.method"] == ("searle", "default")
    (tmp_path / "cig.toml").write_text('phi_vit = "p.pt"\n[search]\nmethod = "lincir"\n[generate]\nsteps = 7\n')
    assert in_force(capsys, *line)["search.method"] == ("lincir", "cig.toml")
    assert in_force(capsys)["generate.steps"] == ("7", "cig.toml")
    assert in_force(capsys)["phi_vit"] == ("p.pt", "cig.toml")
    monkeypatch.setenv("CIG_SEARCH_METHOD", "text")
    monkeypatch.setenv("CIG_PHI_VIT", "q.pt")
    assert in_force(capsys, *line)["search.method"] == ("text", "CIG_SEARCH_METHOD in the environment")
    assert in_force(capsys)["phi_vit"] == ("q.pt", "CIG_PHI_VIT in the environment")
    shown = in_force(capsys, *line, "--eval-type", "image")
    assert shown["search.method"] == ("image", "--method")
    assert shown["search.clip"] == ("c", "--clip")


def test_a_generators_name_sets_flags_that_are_not_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shipped, line = config.GENERATORS["sdxl/icons"], ["run", "icons/val", "--generator", "sdxl/icons"]
    told = "generator sdxl/icons"
    shown = in_force(capsys, *line, "--steps", "3")
    assert shown["generate.height"] == ("64", told)
    assert shown["generate.steps"] == ("3", "--steps")
    assert shown["compose.clip2"] == (shipped["compose"]["clip2"], told)
    assert in_force(capsys, "extract", "icons/val", "--generator", "sdxl/icons")["compose.phi"][1] == told
    (tmp_path / "cig.toml").write_text("[generate]\nheight = 128\n")
    assert in_force(capsys, *line)["generate.height"] == ("64", told), "who names it by a flag means it"
    (tmp_path / "cig.toml").write_text('[generate]\ngenerator = "sdxl/icons"\nheight = 128\n')
    shown = in_force(capsys, "run", "icons/val")
    assert shown["generate.height"] == ("128", "cig.toml")
    assert shown["generate.width"] == ("64", told)


def test_an_unknown_generator_exits_2(capsys):
    code, _, err = run(capsys, "generate", "icons/val", "--generator", "sdxl/icon")
    assert code == 2
    assert 'no generator "sdxl/icon". Did you mean "sdxl/icons"' in err


def test_settings_reach_the_verb(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIG_CIRR", str(world / "CIRR"))
    text = f'[search]\nmethod = "image"\nclip = "{world}/models/clip-small"\nfeature_cache = "f"\n'
    (tmp_path / "cig.toml").write_text(text)
    assert run(capsys, "evaluate", "cirr", "--json", "a.json")[0] == 0
    assert json.loads((tmp_path / "a.json").read_text())["method"] == "image"
    assert "60 features" in run(capsys, "cache")[1]
    assert run(capsys, "cache", "--clear")[0] == 0
    assert "0 features" in run(capsys, "cache", "f")[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[serch]", 'Did you mean "search"'),
        ("[search]\nmethd = 1", 'Did you mean "method"'),
        ("[search]\nclip = [1]", "should be a text or a number"),
        ("search = 1", "should be a table"),
        ("[generate]\nsteps = 'many'", "steps"),
    ],
)
def test_wrong_settings_exit_2(tmp_path, monkeypatch, capsys, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cig.toml").write_text(text)
    code, out, err = run(capsys, "generate", "cirr") if "generate" in text else run(capsys, "evaluate", "cirr")
    assert code == 2
    assert words in out + err
    assert "Traceback" not in err


def test_tables_are_the_groups_of_flags(capsys):
    """Every flag of a group may be set, and nothing else."""
    from cig.config import PATHS, TABLES

    shown = set(in_force(capsys, "run")) | set(in_force(capsys, "evaluate")) | set(in_force(capsys, "generate"))
    assert shown == {f"{table}.{key}" for table, keys in TABLES.items() for key in keys}
    assert set(PATHS) <= set(in_force(capsys))


# Stopping, and running out of memory


def stop_at(monkeypatch, name, picture, number=signal.SIGINT):
    """Sends a signal to this process while this picture is written."""
    write = files.write_png

    def writing(path, image):
        if path.name == picture:
            os.kill(os.getpid(), number)
        write(path, image)

    monkeypatch.setattr(name, writing)


def run_cirr(world, out):
    models = world / "models"
    line = ["run", "cirr/val", "--dataset-path", world, "--out", out, "--height", "64", "--width", "64", "--steps", "2"]
    line += ["--clip", models / "clip-small", "--clip2", models / "clip-large"]
    line += ["--phi", models / "phi-small.pt", "--phi2", models / "phi-large.pt", "--device", "cpu"]
    line += ["--model-path", models / "sdxl", "--sdxl-repo", models / "sdxl", "--vae-repo", models / "sdxl/vae"]
    return [*line, "--search-clip", models / "clip-small", "--search-phi", models / "phi-small.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_batch_and_a_rerun_goes_on(world, tmp_path, monkeypatch, capsys, number):
    with monkeypatch.context() as patch:
        stop_at(patch, "cig.generators._generate.write_png", "09997.png", number)
        code, _, err = run(capsys, *run_cirr(world, tmp_path))
    assert code == 130
    assert "stopping at the end of this batch" in err
    assert "imagine cirr/val: stopped after 1 of 2 batches; what was finished is kept, and a rerun goes on" in err
    made = sorted(path.name for path in (tmp_path / "pseudo_targets").glob("*.png"))
    assert made == ["09996.png", "09997.png", "09998.png", "09999.png"]
    code, _, err = run(capsys, *run_cirr(world, tmp_path))
    assert (code, "4 queries done, 4 kept" in err) == (0, True)


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_finished(world, tmp_path, monkeypatch, capsys):
    replace, left = os.replace, [4]  # settings.json and three pictures

    def filling(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", filling)
        code, _, err = run(capsys, *run_cirr(world, tmp_path))
    pictures = tmp_path / "pseudo_targets"
    assert code == 1
    assert f"09999.png cannot be written to {pictures}: No space left on device; free space or choose another" in err
    assert sorted(path.name for path in pictures.glob("*.png")) == ["09996.png", "09997.png", "09998.png"]
    code, _, err = run(capsys, *run_cirr(world, tmp_path))
    assert (code, "5 queries done, 3 kept" in err) == (0, True)


def test_a_method_that_looks_at_no_picture_needs_none_imagined(world, tmp_path, capsys):
    line = run_cirr(world, tmp_path)[:-2]  # without --search-phi
    code, _, err = run(capsys, *line, "--method", "text")
    assert (code, "`cig evaluate --method text` does without" in err) == (2, True)
    assert not (tmp_path / "pseudo_targets").exists()


def test_memory_that_runs_out_names_the_flags(monkeypatch, capsys):
    def full(*args, **options):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB.\nmore")

    monkeypatch.setattr("cig.pipelines.evaluate.evaluate", full)
    code, _, err = run(capsys, "evaluate", "cirr")
    assert (code, "lower --batch-size" in err, "Traceback" in err) == (1, True, False)
    monkeypatch.setattr("cig.pipelines.evaluate.evaluate", Mock(side_effect=MemoryError))
    code, _, err = run(capsys, "evaluate", "cirr")
    assert (code, err.startswith("cig: MemoryError\nOut of memory")) == (1, True), "it says nothing itself"


@pytest.mark.parametrize("kept", [True, False])
def test_a_stop_says_whether_features_are_kept(world, tmp_path, capsys, monkeypatch, kept):
    def stopped(*args, **options):
        raise Interrupted("pictures: stopped after 1 of 3 batches")
        yield

    monkeypatch.setattr("cig.retrieval.features.progress", stopped)
    line = ["evaluate", "cirr", "--dataset-path", world, "--method", "image", "--clip", world / "models/clip-small"]
    code, _, err = run(capsys, *line, *(["--feature-cache", tmp_path] if kept else []))
    assert (code, "a rerun goes on from there" in err, "nothing of it is kept" in err) == (130, kept, not kept), err


def test_ctrl_c_exits_130(monkeypatch, capsys):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("cig.pipelines.evaluate.evaluate", stop)
    assert run(capsys, "evaluate", "cirr")[0] == 130


def test_python_m_cig():
    done = subprocess.run([sys.executable, "-m", "cig", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.1.0"


@pytest.mark.parametrize("verb", ["extract", "generate", "evaluate", "submit", "run"])
def test_help_tells_every_flag(verb, capsys):
    app([verb, "--help"], result_action="return_value")
    shown = capsys.readouterr().out
    assert "--dataset-path" in shown
    assert "--num-workers" in shown


@pytest.mark.slow
def test_who_reads_no_further_gets_no_traceback():
    with subprocess.Popen([sys.executable, "-u", "-m", "cig", "models", "list"], stdout=-1, stderr=-1) as listing:
        listing.stdout.close()  # at once: after a line, what is left might already lie in the pipe
        assert (listing.stderr.read(), listing.wait()) == (b"", 141)


def test_config_of_a_verb_without_settings_says_so(capsys):
    code, out, _ = run(capsys, "config", "download", "cirr")
    assert code == 0
    assert "cig.toml" in out


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        ("run cirr --method serle", "searle"),
        ("evaluate cirr --method serle", "searle"),
        ("submit cirr --submission-name a --method searle/b23", "b32"),
        ("run cirr/vall", "val"),
        ("plan cirrr", "cirr"),
        (
            "run cirr --branch 'name=a pictures=pseudo-target weight=.2' --branch 'name=b pictures=orcale weight=.2'",
            "oracle",
        ),
    ],
)
def test_a_wrong_name_goes_before_what_is_not_there(tmp_path, monkeypatch, capsys, line, guess):
    """From an empty folder, where no weights and no data are: their lines would hide the guess."""
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *shlex.split(line))
    assert (code, f'Did you mean "{guess}"?' in err, "is not there" in err) == (2, True, False), err


def test_compare_takes_method_for_methods():
    """As every other verb calls it; one or several."""
    for words in (
        ["--method", "text", "image"],
        ["--methods", "text", "image"],
        ["--method", "text", "--method", "image"],
    ):
        _, bound, _ = app.parse_args(["compare", "cirr/val", *words], exit_on_error=False, print_error=False)
        assert bound.kwargs["methods"] == ("text", "image")


@pytest.mark.parametrize(("number", "expected"), [(errno.EACCES, 1), (errno.ENOSPC, 1), (errno.ENAMETOOLONG, 2)])
def test_a_path_that_the_system_refuses_is_named(monkeypatch, capsys, number, expected):
    """Where nothing of ours says so first."""

    def refused(*asked, **options):
        raise OSError(number, os.strerror(number), "/closed/folder")

    monkeypatch.setattr("cig.io.feature_cache.summary", refused)
    code, _, err = run(capsys, "cache", "somewhere")
    assert (code, "/closed/folder" in err, os.strerror(number) in err) == (expected, True, True)


@pytest.mark.parametrize("verb", ["serve", "search", "index info", "trial", "cache", "check cirr --dataset-path"])
def test_a_name_that_no_file_can_have(tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    further = ["--text", "red"] if verb == "search" else ["--method", "image/icons"] if verb == "trial" else []
    code, _, err = run(capsys, *verb.split(), "é" * 300, *further)
    assert (code, "é" * 50 in err) == (2, True), err
