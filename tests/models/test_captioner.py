"""A captioner, against greedy decoding by hand."""

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, VisionEncoderDecoderModel

import tiny
from cig.errors import InputError
from cig.models.captioner import load_captioner

CPU, FLOAT = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(1)
    tiny.make_captioner(folder)
    return folder


def test_captions_are_greedy(folder):
    captioner = load_captioner(str(folder), CPU, FLOAT)
    pictures = [Image.effect_noise((40, 30), 90).convert("RGB"), Image.new("RGB", (64, 64), "red")]
    model, tokenizer = VisionEncoderDecoderModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for picture, caption in zip(pictures, captioner(pictures), strict=True):
        pixels, ids = captioner.preprocess(picture)[None], [1]
        while len(ids) <= 30 and ids[-1] != 2:
            with torch.no_grad():
                logits = model(pixel_values=pixels, decoder_input_ids=torch.tensor([ids])).logits
            ids.append(int(logits[0, -1].argmax()))
        assert caption == " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
        assert caption
    assert captioner.identity["sha256"]
    assert captioner([]) == []


def test_what_is_no_captioner(world, tmp_path):
    with pytest.raises(InputError, match=r"the captioner in .*clip-small cannot be loaded"):
        load_captioner(str(world / "models/clip-small"), CPU, FLOAT)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_captioner(str(tmp_path), CPU, FLOAT)
