"""CLIPs as people have them: what is read, and what the error says of the rest."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cig.errors import CigError, InputError, NotFoundError, reason
from cig.models.clip import load_clip

FILE = "model.safetensors"


@pytest.fixture
def folder(world, tmp_path):
    return Path(shutil.copytree(world / "models/clip-small", tmp_path / "clip"))


def embed(folder):
    return load_clip(folder).embed_texts(["a red dress"])


def test_a_variant_and_pickled_weights_are_read(folder):
    expected = embed(folder)
    torch.save(safetensors.torch.load_file(folder / FILE), folder / "pytorch_model.bin")
    (folder / FILE).rename(folder / "aside")
    torch.testing.assert_close(embed(folder), expected, rtol=0, atol=1e-5)  # their place in memory moves the last bit
    (folder / "pytorch_model.bin").unlink()
    (folder / "aside").rename(folder / "model.fp16.safetensors")
    torch.testing.assert_close(embed(folder), expected, rtol=0, atol=1e-5)  # their place in memory moves the last bit


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda name: f"module.{name}", r'"module\."'),
        (lambda name: name.replace("fc1", "fc"), r"fc1\.bias"),
        (lambda name: name if "text_projection" not in name else "", r"text_projection\.weight"),
    ],
)
def test_weights_under_other_names_are_told(folder, change, word):
    weights = safetensors.torch.load_file(folder / FILE)
    renamed = {change(name): value for name, value in weights.items() if change(name)}
    safetensors.torch.save_file(renamed, folder / FILE)
    with pytest.raises(InputError, match=word):
        load_clip(folder)


class Program:
    def __reduce__(self):
        return print, ("ran",)


def test_what_a_folder_has_instead_of_weights_is_told(folder, capsys):
    (folder / FILE).unlink()
    for content, word in ((None, "found"), ({"a": Program()}, "pytorch_model.bin"), (b"abc", "pytorch_model.bin")):
        path = folder / "pytorch_model.bin"
        if content is not None:
            path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(InputError) as caught:
            load_clip(folder)
        assert word in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert "ran" not in capsys.readouterr().out
    with pytest.raises(NotFoundError, match=str(folder)):
        load_clip(folder / "config.json")
    with pytest.raises(NotFoundError, match="no such folder"):
        load_clip(folder / "nothing")


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
@pytest.mark.parametrize("layers", [0, -1, 1, 3])
def test_another_number_of_layers_than_the_weights_have(folder, part, layers):
    config = json.loads((folder / "config.json").read_text())
    config[part]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="layers"):
        load_clip(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("num_attention_heads", -1), ("layer_norm_eps", None), ("eos_token_id", []), ("hidden_act", "x")]
)
def test_values_that_a_model_cannot_run_with(folder, key, value):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CigError) as caught:
        embed(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("\x1b[31mWrong shape.\x1b[0m\nmore", "Wrong shape."),
        ("Error in loading X:\n\tsize mismatch for a.", "Error in loading X: size mismatch for a."),
        ("For details look at the above report!", "ValueError"),
        ("Load failed. Set weights_only=False to go on.", "Load failed."),
        ("", "ValueError"),
    ],
)
def test_what_is_passed_on_of_a_librarys_message(said, kept):
    assert reason(ValueError(said)) == kept
