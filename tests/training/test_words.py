"""Concepts and phrases: what is read, what is made, and that a rerun makes the same."""

import json
import math
import pickle
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

import serving
from calls import run
from cig import config
from cig.cli import train_oti, train_words
from cig.errors import InputError, MismatchError, NotFoundError, UsageError
from cig.io.feature_cache import FeatureCache
from cig.io.http import WebError
from cig.methods import EMBEDDED
from cig.models.clip import load_clip
from cig.models.dual_encoder import load_tower
from cig.training.data import association, vocabulary
from cig.training.data.association import associate, embed_names
from cig.training.data.concepts import read_concepts, write_concepts
from cig.training.data.language_model import InverseTransformSampler, Sampling, load_language_model
from cig.training.data.phrases import clean_phrase, generate_phrases, read_phrases
from cig.training.data.pictures import load_pictures
from cig.training.data.templates import TEMPLATES, Phrasebook
from cig.training.data.vocabulary import load_concepts, load_vocabulary, of_names

ICONS = EMBEDDED / "clip"  # a small CLIP that is shipped

# Tables of concepts


def table(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_as_published_is_read(tmp_path):
    published = table(tmp_path / "a.csv", 'Image Name,1,2\nx.JPEG,Dog,"Cat, wild"\ny.JPEG,"Cat, wild",Nan\n')
    read = read_concepts(published)
    assert read == {"x.JPEG": ("Dog", "Cat, wild"), "y.JPEG": ("Cat, wild", "Nan")}
    assert read["x.JPEG"][1] is read["y.JPEG"][0], "a name is in memory once"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("Image Name,1\n", "has no rows"),
        ("picture,1\nx,Dog\n", 'its first column is "picture", not "Image Name"'),
        ("Image Name\nx\n", "with names after it"),
        ("Image Name,1\nx,\n", "the row of x has a cell without a name"),
        ("Image Name,1\nx,Dog\nx,Cat\n", "has x twice"),
        ("Image Name,1\nx,Dog,Cat\n", "another number of cells"),
        ("Image Name,1\nx,\udcff\n", "is not UTF-8"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, words):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=words):
        read_concepts(path)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        read_concepts(tmp_path / "a.csv")
    with pytest.raises(UsageError, match="a table comes as"):
        read_concepts(tmp_path / "a.pkl")


# Vocabularies

CLASSES = 'LabelName,DisplayName\n/m/0c4936,\'Nduja\n/m/1,Dog\n/m/2,"Cat, wild"\n/m/3,Dog\n'


def test_a_text_of_names(tmp_path, capsys):
    terms = load_vocabulary(table(tmp_path / "names.txt", "\ufeffDog\r\n\n Cat, wild \nDog\n"))
    assert terms.names == ("Dog", "Cat, wild")
    assert (
        terms.identity["names"],
        terms.identity["blank"],
        terms.identity["again"],
    ) == (2, 1, 1)
    assert "1 lines are blank, 1 names come again and count once Dog" in capsys.readouterr().err
    again = of_names(["Dog", "Cat, wild"], "other")
    assert terms.identity["sha256"] == again.identity["sha256"] != of_names(["Dog"], "other").identity["sha256"]


def test_a_table_of_class_names(tmp_path):
    assert load_vocabulary(table(tmp_path / "a.csv", CLASSES)).names == ("'Nduja", "Dog", "Cat, wild")
    with pytest.raises(InputError, match="no name in the column DisplayName; its columns are name"):
        load_vocabulary(table(tmp_path / "b.csv", "name\nDog\n"))
    with pytest.raises(InputError, match="has no names"):
        load_vocabulary(table(tmp_path / "c.txt", "\n\n"))
    with pytest.raises(InputError, match=r"1 names are no text, the first of them '\\ud800'"):
        load_vocabulary(table(tmp_path / "d.json", '[{"DisplayName": "Dog"}, {"DisplayName": "\\ud800"}]'))
    with pytest.raises(NotFoundError, match="give a file of names, or open-images"):
        load_vocabulary(tmp_path / "none.txt")


def test_open_images_are_asked_for_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert vocabulary.ADDRESS.startswith("https://storage.googleapis.com/openimages/v7/")
    with serving.serve(serving.Files({"/a.csv": CLASSES.encode()}, moods=["503"])) as server:
        for _ in range(2):
            assert load_vocabulary("open-images", f"{server.url}/a.csv").names == ("'Nduja", "Dog", "Cat, wild")
        assert len(server.asked) == 2, "once in vain, once, and then not again"
        with pytest.raises(WebError, match="404; fetch it by other means, and give the file with --vocabulary"):
            load_vocabulary("open-images", f"{server.url}/none.csv")
        server.content["/page.csv"] = b"<html>"
        with pytest.raises(InputError, match="its first line has no column DisplayName"):
            load_vocabulary("open-images", f"{server.url}/page.csv")
        monkeypatch.setattr(vocabulary, "MOST", 20)
        with pytest.raises(WebError, match="refused; fetch it by other means"):
            load_vocabulary("open-images", f"{server.url}/a.csv?again")
        monkeypatch.setattr(vocabulary, "ADDRESS", f"{server.url}/a.csv?default")
        with pytest.raises(WebError, match="only https addresses"):
            vocabulary.open_images(f"{server.url}/a.csv?default")
    assert len(list((config.user_cache() / "vocabularies").iterdir())) == 1


# Association


def test_the_templates_are_the_published_ones():
    kinds = ("photo", "illustration", "sketch", "diagram")
    of_a = [f"This is {'an' if kind == 'illustration' else 'a'} {kind} of a {{}}" for kind in kinds]
    contains = [f"This {kind} contains a {{}}" for kind in kinds]
    short = ["A photo of a {}", "An illustrations of a {}", "A sketch of a {}", "A diagram of a {}"]
    shown = ("photo", "image", "illustration")
    seen = [f"We see a {{}}{of}{kind}" for of in (" in this ", " ") for kind in shown]
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 24
    assert set(TEMPLATES) == {
        *(of_a + contains + short + seen),
        *("A {}", "We see a {}", "{}", "{} photo", "{} image", "{} illustration"),
    }


class Colours:
    """A dual tower of red, green and blue: a picture is its mean colour, a text the colour it names.

    Texts with "photo" (6 of the 24 templates) look ten times as much along the next colour instead.
    """

    def __init__(self):
        self.identity, self.texts = {"source": "colours", "sha256": "0"}, []

    def preprocess(self, pad):
        return Pixels(pad)

    def embed_images(self, pixels):
        return pixels.mean((2, 3))

    def embed_texts(self, texts):
        self.texts += texts
        return torch.stack([self.embed_text(text) for text in texts])

    def embed_text(self, text):
        axis = next(i for i, name in enumerate(("red", "green", "blue")) if name in text)
        return 10 * torch.eye(3)[(axis + 1) % 3] if "photo" in text else torch.eye(3)[axis]


class Pixels:
    def __init__(self, pad):
        self.pad = pad

    def __repr__(self):
        return f"Pixels(pad={self.pad})"

    def __call__(self, image):
        return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32)).permute(2, 0, 1) / 255


@pytest.fixture
def swatches(tmp_path):
    """ImageNet's layout, with a file that is no picture."""
    home = tmp_path / "pictures"
    for name, colour in {"n01/a.png": (9, 0, 1), "n01/b.png": (0, 1, 9), "n02/c.png": (0, 5, 0)}.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), colour).save(home / name)
    (home / "n02/broken.JPEG").write_bytes(b"no picture")
    return home


def test_names_are_unit_means_of_unit_features(tmp_path):
    tower, cache = Colours(), FeatureCache(tmp_path)
    made = embed_names(["red", "blue"], tower, cache)
    photos = sum("photo" in template for template in TEMPLATES)
    assert photos == 6
    x, y = 3 / math.sqrt(10), 1 / math.sqrt(10)  # 18 of one, 6 of the other
    assert torch.allclose(made, torch.tensor([[x, y, 0.0], [y, 0.0, x]]), atol=1e-6)
    assert len(tower.texts) == 48
    assert torch.equal(embed_names(["blue", "green", "red"], tower, cache)[[2, 0]], made)
    assert len(tower.texts) == 72, "what is in the cache is not encoded again"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_each_picture_gets_its_nearest_names(swatches, tmp_path, monkeypatch, form):
    monkeypatch.setattr(association, "PICTURES_AT_ONCE", 2)
    monkeypatch.setattr(association, "NAMES_AT_ONCE", 2)
    names = of_names(["blue", "green", "red", "red, dark", 'a "red"\nline'], "own")
    made = associate(load_pictures(str(swatches)), names, Colours(), k=3)
    expected = {
        "n01/a.png": ("red", "red, dark", 'a "red"\nline'),  # equal: in the order of the vocabulary
        "n01/b.png": ("blue", "green", "red"),
        "n02/c.png": ("green", "red", "red, dark"),
    }
    out = tmp_path / f"concepts.{form}"
    write_concepts(out, made)
    assert read_concepts(out) == expected
    card = json.loads((tmp_path / f"concepts.{form}.json").read_text())
    assert card["counts"] == {"pictures": 3, "unreadable": 1}
    assert list(card["unreadable"]) == ["n02/broken.JPEG"]
    assert (card["pictures"]["pictures"], card["clip"]) == ("4", {"source": "colours", "sha256": "0"})
    assert (card["k"], len(card["templates"]), card["vocabulary"]["names"]) == (3, 24, 5)


def test_a_name_with_a_carriage_return_comes_back(swatches, tmp_path):
    made = associate(load_pictures(str(swatches)), of_names(["red\rdark"], "own"), Colours(), k=1)
    write_concepts(tmp_path / "c.csv", made)
    assert set(read_concepts(tmp_path / "c.csv").values()) == {("red\rdark",)}


def test_what_cannot_be_associated(swatches, tmp_path):
    pictures = load_pictures(str(swatches))
    with pytest.raises(UsageError, match="-k 2: own has 1 names; give 1 to 1"):
        associate(pictures, of_names(["red"], "own"), Colours(), k=2)
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.png").write_bytes(b"")
    with pytest.raises(InputError, match="none of the 1 pictures can be read"):
        associate(load_pictures(str(tmp_path / "none")), of_names(["red"], "own"), Colours(), k=1)


def test_a_picture_whose_name_is_no_text_is_named(swatches):
    try:
        (swatches / "odd\udcff.png").write_bytes((swatches / "n01/a.png").read_bytes())
    except OSError:
        pytest.skip("this disk takes UTF-8 alone")
    made = associate(load_pictures(str(swatches)), of_names(["red"], "own"), Colours(), k=1)
    assert made.unreadable["odd\udcff.png"] == "its name is not UTF-8; rename it"
    assert len(made.pictures) == 3


def test_the_verb_ends_with_1_where_pictures_are_unreadable(swatches, tmp_path, capsys):
    names = table(tmp_path / "names.txt", "dog\ncat\na bird\n")
    command = ["train", "concepts", swatches, "--clip", ICONS, "--vocabulary", names, "-k", 2]
    code, out, err = run(capsys, *command, "--out", tmp_path / "a.csv", "--feature-cache", tmp_path / "cache")
    assert (code, "3 pictures, each with 2 of 3 names" in out, "n02/broken.JPEG" in err) == (1, True, True)
    assert "Traceback" not in err
    (swatches / "n02/broken.JPEG").unlink()
    assert run(capsys, *command, "--out", tmp_path / "b.parquet", "--feature-cache", tmp_path / "cache")[0] == 0
    assert read_concepts(tmp_path / "a.csv") == read_concepts(tmp_path / "b.parquet")
    assert run(capsys, *command, "--out", tmp_path / "a.txt")[0] == 2
    assert load_concepts(str(tmp_path / "a.csv")) == tuple(
        dict.fromkeys(name for row in read_concepts(tmp_path / "a.csv").values() for name in row)
    )


# Phrases

LINES = {"dog": ["a photo of dog that runs", "a photo of dog that is"], "a..b": ["a photo of a.b that"]}


def test_phrases_are_read_from_either_form_and_lost_concepts_named(tmp_path, capsys):
    (tmp_path / "concept_to_phrases.pkl").write_bytes(pickle.dumps(LINES))
    rows = [{"concept": "dog", "phrases": ["an older line"]}, *({"concept": k, "phrases": v} for k, v in LINES.items())]
    table(tmp_path / "phrases.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for name in ("concept_to_phrases.pkl", "phrases.jsonl"):
        assert read_phrases(tmp_path / name) == {"dog": tuple(LINES["dog"])}
        assert "1 concepts are left out, because not all of their phrases have them: a..b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"concept": "a", "phrases": ["b"]}', "no concept that is in all of its phrases"),
        ('{"concept": "a"}', "a line should be"),
        ('{"concept": "", "phrases": []}', "a line should be"),
        ('{"concept": "a", "phrases": ["a", 5]}', "a line should be"),
        ('{"concept": "a", "phr', "line 1: not JSON"),
    ],
)
def test_other_phrases_are_refused(tmp_path, line, words):
    with pytest.raises(InputError, match=words):
        read_phrases(table(tmp_path / "phrases.jsonl", line + "\n"))
    with pytest.raises(UsageError, match="phrases come as"):
        read_phrases(tmp_path / "phrases.txt")


def test_phrases_are_cleaned_as_published():
    assert clean_phrase("a dog\n\n\nruns... away.\n") == "a dog. runs. away. "
    assert clean_phrase("end.\nnext") == "end. next"


# A language model


def drawn(draws, scores, **sampling):
    """The tokens that are left, one a row."""
    ids = torch.zeros(len(draws), 0, dtype=torch.long)
    out = InverseTransformSampler(torch.tensor(draws)[:, None], Sampling(**sampling))(
        ids, torch.tensor([scores] * len(draws)).log()
    )
    assert (out == 0).sum(1).tolist() == [1] * len(draws)
    return out.argmax(1).tolist()


def test_a_draw_stands_for_a_token():
    half = [0.5, 0.25, 0.0, 0.25]
    assert drawn([1e-6, 0.49, 0.51, 0.74, 0.76, 1.0], half, temperature=1.0) == [0, 0, 1, 1, 3, 3]
    assert drawn([0.66, 0.67, 0.83, 0.84], half, temperature=0.5) == [0, 1, 1, 3]  # 4/6, 1/6, 1/6
    assert drawn([0.49, 0.51, 1.0], [0.25, 0.1, 0.4, 0.25], temperature=1.0, top_k=1) == [2, 2, 2]


def test_draws_depend_on_seed_and_prompt_alone():
    torch.manual_seed(5)
    one = Sampling(count=3).draws("a photo of dog that")
    torch.rand(7)
    assert torch.equal(one, Sampling(count=3).draws("a photo of dog that"))
    assert not torch.equal(one, Sampling(count=3, seed=1).draws("a photo of dog that"))
    assert not torch.equal(one, Sampling(count=3).draws("a photo of cat that"))
    assert one.shape == (3, 35)
    assert one.min() > 0


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """A GPT-2 of noise, whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("speaker")
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(vocab={**letters, "<|end|>": 256}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="<|end|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=257, n_positions=64, n_embd=32, n_layer=2, n_head=2, eos_token_id=256)
    model = GPT2LMHeadModel(config)
    model.generation_config.update(
        do_sample=True, top_p=0.1, repetition_penalty=3.0, max_new_tokens=1
    )  # habits that must not matter
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(speaker):
    return load_language_model(str(speaker), torch.device("cpu"), torch.float32)


SMALL = Sampling(count=6)
CONCEPTS = ("dog", "a..b", "cat, wild", "è", "a name that leaves no room at all", "'Nduja")


@pytest.fixture(scope="module")
def unbroken(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("phrases") / "phrases.jsonl"
    generate_phrases(CONCEPTS, model, SMALL, out=out)
    return out


def test_phrases_continue_the_prompt(unbroken, capsys):
    read = read_phrases(unbroken)
    assert list(read) == ["dog", "cat, wild", "è", "'Nduja"]
    assert "2 concepts are left out" in capsys.readouterr().err
    for concept, phrases in read.items():
        assert len(set(phrases)) == 6
        assert all(phrase.startswith(f"a photo of {concept} that") for phrase in phrases)
    card = json.loads(unbroken.with_name("phrases.jsonl.json").read_text())
    assert (card["concepts"], card["left out"]) == (6, ["a..b", "a name that leaves no room at all"])
    assert (card["settings"]["temperature"], card["settings"]["max_length"]) == (0.5, 35)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_change_no_phrase(unbroken, model, tmp_path, batch_size):
    out = tmp_path / "phrases.jsonl"
    generate_phrases(CONCEPTS, model, SMALL, out=out, batch_size=batch_size)
    assert out.read_bytes() == unbroken.read_bytes()


@pytest.mark.parametrize("torn", [b"", b'{"concept": "a..b", "phr'])
def test_a_killed_run_ends_as_one_that_was_not(unbroken, model, tmp_path, torn):
    out = tmp_path / "phrases.jsonl"
    generate_phrases(CONCEPTS[:1], model, SMALL, out=out)
    with out.open("ab") as file:
        file.write(torn)
    done = generate_phrases(CONCEPTS, model, SMALL, out=out)
    assert (done.concepts, done.made, len(done.lost)) == (6, 5, 2)
    assert out.read_bytes() == unbroken.read_bytes()
    assert generate_phrases(CONCEPTS, model, SMALL, out=out).made == 0


def test_neighbours_change_no_phrase(unbroken, model, tmp_path):
    generate_phrases(["è", "dog", "dog"], model, SMALL, out=tmp_path / "phrases.jsonl")
    assert {**read_phrases(unbroken), **read_phrases(tmp_path / "phrases.jsonl")} == read_phrases(unbroken)


def test_no_pair_of_tokens_comes_twice(model, monkeypatch):
    """The coldest model of noise repeats itself, if it may."""
    made = []
    monkeypatch.setattr(model.tokenizer, "batch_decode", lambda ids, **_: made.extend(ids.tolist()) or [])
    for no_repeat in (0, 2):
        model.continued("a photo of dog that", Sampling(1, temperature=1e-3, max_length=60, no_repeat=no_repeat))
    pairs = [len(row) - 1 - len(set(pairwise(row))) for row in made]
    assert pairs[0] > 0
    assert pairs[1] == 0


def test_other_settings_are_refused_by_name(unbroken, model, tmp_path):
    before = unbroken.read_bytes()
    with pytest.raises(MismatchError, match=r"temperature: 0\.5 there, 0\.7 now"):
        generate_phrases(CONCEPTS, model, Sampling(6, temperature=0.7), out=unbroken)
    assert unbroken.read_bytes() == before
    with pytest.raises(MismatchError, match="does not say how"):
        generate_phrases(CONCEPTS, model, SMALL, out=table(tmp_path / "phrases.jsonl", ""))
    with pytest.raises(UsageError, match=r"written as \.jsonl"):
        generate_phrases(CONCEPTS, model, SMALL, out=tmp_path / "phrases.json")
    with pytest.raises(UsageError, match=r"--max-length 65: .* takes 64 tokens"):
        generate_phrases(CONCEPTS, model, Sampling(6, max_length=65), out=tmp_path / "phrases.jsonl")
    with pytest.raises(InputError, match="not finite; try --dtype float32"):
        drawn([0.5], [math.nan, 0.5], temperature=1.0)
    with pytest.raises(UsageError, match="--temperature 0"):
        Sampling(temperature=0)


def test_a_line_that_is_not_ours_is_not_written_over(model, tmp_path):
    out = tmp_path / "phrases.jsonl"
    generate_phrases(["dog"], model, SMALL, out=out)
    out.write_text("{}\n" + out.read_text())
    with pytest.raises(InputError, match="a line should be"):
        generate_phrases(CONCEPTS, model, SMALL, out=out)


@pytest.mark.slow
def test_weights_come_from_safetensors_alone(speaker, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    device = torch.device("cpu"), torch.float32
    shutil.copytree(speaker, tmp_path / "a")
    weights = load_file(tmp_path / "a/model.safetensors")
    save_file({name: weight for name, weight in weights.items() if "h.1" not in name}, tmp_path / "a/model.safetensors")
    with pytest.raises(InputError, match="lacks weights of a language model"):
        load_language_model(str(tmp_path / "a"), *device)
    (tmp_path / "a/model.safetensors").unlink()
    torch.save(weights, tmp_path / "a/pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_language_model(str(tmp_path / "a"), *device)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_language_model(str(ICONS), *device)


def test_shards_are_the_whole(tmp_path, speaker):
    (tmp_path / "names.txt").write_text("dog\ncat\nbird\n")
    for shard in ("1/1", "1/2", "2/2"):
        out = tmp_path / f"{shard[0]}of{shard[2]}.jsonl"
        train_words.phrases(str(tmp_path / "names.txt"), out=out, model=str(speaker), count=2, shard=shard)
    whole, one, two = (read_phrases(tmp_path / f"{name}.jsonl") for name in ("1of1", "1of2", "2of2"))
    assert {**one, **two} == whole
    assert not set(one) & set(two)


def test_a_model_of_one_file(tmp_path, monkeypatch):
    """GGUF by its library; another file is no model."""
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "m.bin").write_bytes(b"?")
    asked = []

    def load(kind, source, what, *, files, **options):
        asked.append((source, files["gguf_file"], "use_safetensors" in options))
        raise InputError("no more")

    monkeypatch.setattr("cig.training.data.language_model.load_with_tokenizer", load)
    cpu = torch.device("cpu")
    monkeypatch.setattr("transformers.utils.import_utils.is_gguf_available", lambda: True)
    with pytest.raises(InputError):
        load_language_model(str(tmp_path / "m.gguf"), cpu, torch.float32)
    assert asked == [(str(tmp_path), "m.gguf", False)]
    with pytest.raises(UsageError, match=r"m\.bin"):
        load_language_model(str(tmp_path / "m.bin"), cpu, torch.float32)
    monkeypatch.setattr("transformers.utils.import_utils.is_gguf_available", lambda: False)
    with pytest.raises(UsageError, match="pip install gguf"):
        load_language_model(str(tmp_path / "m.gguf"), cpu, torch.float32)


@pytest.mark.parametrize("flags", [{"k": 0}, {"limit": 0}, {"clip": "no-such-folder/x/y"}, {"batch_size": 0}])
def test_a_vocabulary_is_not_downloaded_for_a_wrong_call(swatches, tmp_path, monkeypatch, flags):
    monkeypatch.setattr(vocabulary, "open_images", lambda address: pytest.fail("a download"))
    call = {"clip": str(EMBEDDED / "clip"), "vocabulary": "open-images", "out": tmp_path / "c.csv", **flags}
    with pytest.raises(UsageError):
        train_words.concepts(str(swatches), **call)


def test_a_shipped_clip_has_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = ("icons", "icons/clip", "icons/large")
    assert [load_clip(name).feature_width for name in names] == [
        load_clip(EMBEDDED / folder).feature_width for folder in ("clip", "clip", "large")
    ]
    assert load_tower("icons", torch.device("cpu"), torch.float32).identity["source"] == str(EMBEDDED / "clip")
    (tmp_path / "icons").mkdir()
    with pytest.raises(NotFoundError, match=r"config\.json"):
        load_clip("icons")


def test_pictures_in_folders_are_found_by_their_files_names():
    """As SEARLE's table of ImageNet's test pictures names them, unless two have one name."""
    book = Phrasebook({"1.png": ("dog",), "n2/2.png": ("cat",)}, {"dog": ("a dog",), "cat": ("a cat",)}, top=1)
    assert book.lacking(["n1/1.png", "n2/2.png", "3.png"]).keys() == {"3.png"}
    assert book.draw("n1/1.png", Random(0)) == ("dog", "a dog")
    book.need_distinct(["n1/1.png", "n2/2.png"])
    with pytest.raises(UsageError, match=r"n1/1\.png"):
        book.need_distinct(["n1/1.png", "n4/1.png"])


def test_phrases_are_also_written_for_searles_programs(tmp_path, speaker):
    """Which unpickle a dict of lists of texts, all concepts in it."""
    names, out = table(tmp_path / "names.txt", "dog\na..b\n"), tmp_path / "phrases.jsonl"
    train_words.phrases(str(names), out=out, model=str(speaker), count=2, layout="published")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    found = pickle.loads((tmp_path / "concept_to_phrases.pkl").read_bytes())
    assert found == {row["concept"]: row["phrases"] for row in rows}
    assert list(found) == ["dog", "a..b"]
    assert read_phrases(tmp_path / "concept_to_phrases.pkl") == read_phrases(out)
    with pytest.raises(UsageError, match="--shard"):
        train_words.phrases(str(names), out=out, model=str(speaker), layout="published", shard="1/2")


@pytest.mark.parametrize("verb", ["concepts", "phrases", "oti"])
def test_several_processes_would_each_do_all(verb, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    calls = {
        "concepts": lambda: train_words.concepts("p", clip="c", vocabulary="v", out=tmp_path / "c.csv"),
        "phrases": lambda: train_words.phrases("names.txt", out=tmp_path / "p.jsonl"),
        "oti": lambda: train_oti.oti("p", clip="c", out=tmp_path / "w"),
    }
    with pytest.raises(UsageError, match=f"train {verb} was started in 2 processes, and each would do all of it"):
        calls[verb]()


def test_the_verb_says_what_it_made(speaker, tmp_path, capsys):
    names = table(tmp_path / "names.txt", "dog\na..b\n")
    command = ["train", "phrases", names, "--model", speaker, "--count", 2, "--out", tmp_path / "phrases.jsonl"]
    code, out, _ = run(capsys, *command)
    assert (code, "2 concepts, 2 of them now, each with 2 phrases" in out) == (0, True)
    assert "1 concepts are left out, because not all of their phrases have them: a..b" in out
    code, _, err = run(capsys, *command, "--seed", 1)
    assert (code, "seed: 0 there, 1 now" in err) == (2, True)
