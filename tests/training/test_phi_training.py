"""A phi's data, keywords, validation and files; and the whole of it on pictures and captions of one's own."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from random import Random
from types import SimpleNamespace

import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from cig.benchmarks import Data
from cig.cli import train as verbs
from cig.cli import train_phi
from cig.cli.flags import LoopFlags, ValidateFlags
from cig.cli.main import main
from cig.errors import InputError, MismatchError, NotFoundError, UsageError
from cig.evaluation.score import evaluate
from cig.io.feature_cache import FeatureCache
from cig.io.images import Preprocess
from cig.io.tensors import read_tensors
from cig.models.clip import load_clip
from cig.models.phi import IM2TEXT, PHI, Im2Text, Phi, load_phi, read_phi
from cig.models.preprocessing import load_clip_preprocess
from cig.pipelines import _search_benchmark
from cig.retrieval.requests import Searching
from cig.runtime import Compute
from cig.training import loop, phi_files
from cig.training.checkpoint import new_state
from cig.training.data import taggers
from cig.training.data.captions import PackedTexts, load_captions
from cig.training.data.decoding import Decoder, UnreadablePictures
from cig.training.data.keywords import Word, mask_keywords
from cig.training.data.pairs import pair_source
from cig.training.data.pictures import load_pictures, pixel_source
from cig.training.data.taggers import load_tagger
from cig.training.objectives import phi as room
from cig.training.objectives.lincir import Lincir
from cig.training.objectives.phi import TrainingDefaults
from cig.training.objectives.pic2word import Pic2Word
from cig.training.objectives.searle import Searle
from cig.training.openai_layout import openai_weights
from cig.training.plan import Plan
from cig.training.step import Step

# Captions


def write_captions(path, texts):
    rows = [{"id": i, "text": text} for i, text in enumerate(texts)]
    if path.suffix == ".txt":
        path.write_text("\n".join(texts) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(texts))
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, ["id", "text"], delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    return str(path)


@pytest.mark.parametrize("form", ["txt", "csv", "tsv", "json", "jsonl", "parquet"])
def test_captions_of_every_form(tmp_path, form):
    said = ["a red cat, asleep", "", "ein Hund – müde", "two cats"]
    found = load_captions(write_captions(tmp_path / f"c.{form}", said))
    assert list(found.texts) == [said[0], *said[2:]]
    assert found.identity["captions"] == "3"
    assert found.identity["left out"].startswith("1 without a text: 2")
    seen = [text for number in range(2) for text in found.of(Step(number, Random(0)), 3)]
    assert sorted(seen[:3]) == sorted(seen[3:]) == sorted(found.texts), "each once a pass"
    assert load_captions(str(tmp_path / f"c.{form}"), seed=1).identity == found.identity


def test_a_cell_may_hold_several_captions(tmp_path):
    parquet.write_table(pyarrow.table({"raw": [["a", "b"], [], None, ["c"]]}), tmp_path / "c.parquet")
    found = load_captions(str(tmp_path / "c.parquet"), "raw")
    assert (list(found.texts), found.identity["left out"]) == (["a", "b", "c"], "2 without a text: 2, 3 (from 1)")


def test_captions_that_are_not_there(tmp_path):
    table = write_captions(tmp_path / "c.csv", ["a"])
    with pytest.raises(UsageError, match=r"has no column title\..*Choose from: id, text"):
        load_captions(table, "title")
    (tmp_path / "d.csv").write_text("id,title\n1,a\n")
    with pytest.raises(UsageError, match=r"no column caption or text; say which it is with --column.*id, title"):
        load_captions(str(tmp_path / "d.csv"))
    with pytest.raises(NotFoundError, match="is not a file; captions come as txt"):
        load_captions(str(tmp_path / "none.txt"))
    with pytest.raises(UsageError, match="icons/train has"):
        load_captions("cirr/train")
    (tmp_path / "e.txt").write_text("\n \n")
    with pytest.raises(InputError, match="holds no caption"):
        load_captions(str(tmp_path / "e.txt"))
    (tmp_path / "f.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="is not UTF-8"):
        load_captions(str(tmp_path / "f.txt"))


def test_packed_texts_are_what_they_were():
    packed = PackedTexts(["a", "", "ü\ud800"])
    assert (list(packed), len(packed), packed.letters) == (["a", "", "ü?"], 3, "aü?".encode())
    assert PackedTexts(["ab"]).digest != PackedTexts(["a", "b"]).digest


# Keywords


class Fake:
    """Three words are keywords; a comma is a word of its own, without a space before it."""

    name = "fake"

    def __call__(self, texts):
        return [[self.word(own) for own in text.replace(",", " ,").split()] for text in texts]

    def word(self, text):
        return Word(text, "" if text == "dog" else " ", text in ("red", "cat", "dog"))


@pytest.mark.parametrize(
    ("caption", "masked"),
    [
        ("the Red cat and DOG, asleep", "the $ and $ , asleep"),
        ("red", "$"),
        ("$", "a photo of $"),
        ("ox", "$"),
        (", ox ,", ", $ ,"),
        (",", "$"),
        ("<PERSON> and a cat", "person and a $"),
        ("US$ red", "us $"),
    ],
)
def test_runs_of_keywords_are_masked(caption, masked):
    assert mask_keywords([caption], Fake(), Random(0)) == [masked]


def test_the_tagger_stands_in_every_result(tmp_path):
    captions = load_captions(write_captions(tmp_path / "c.txt", ["a cat"]))
    assert Lincir(captions, Fake()).inputs["keywords"] == "fake"
    assert Lincir(captions).inputs["keywords"] == "runs of words outside a stop-word list"


def test_taggers_are_found_or_asked_for(monkeypatch):
    monkeypatch.setattr(taggers, "_has_spacy", lambda: False)
    monkeypatch.setattr(taggers, "_has_nltk", lambda: False)
    assert load_tagger().name == load_tagger("stopwords").name == "runs of words outside a stop-word list"
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setitem(sys.modules, "nltk", None)
    for name, what in (("spacy", "spacy download en_core_web_sm"), ("nltk", "nltk.downloader averaged")):
        with pytest.raises(UsageError, match=f"{what}.*or --keywords stopwords"):
            load_tagger(name)


def test_captions_are_cut_before_they_are_masked(world):
    """At 77 tokens: 35 of `red cat`, then words that no target would have."""

    class Told(Fake):
        def __call__(self, texts):
            self.texts = texts
            return super().__call__(texts)

    clip = load_clip(str(world / "models" / "clip-small"), torch.device("cpu"), torch.float32)
    long, tagger = " ".join(["red cat"] * 37 + ["last"] + ["unseen"] * 20), Told()
    captions = SimpleNamespace(of=lambda step, size: [long, "a <PERSON> & $5"])
    list(Lincir(captions, tagger).loss(clip, Phi(40, 80, 32), 2, step=Step(0, Random(0))))
    assert tagger.texts == [" ".join(["red cat"] * 37 + ["last"]), "a person & 5"]


def test_spacy_keeps_the_parser(monkeypatch):
    """Its attribute ruler reads the parser's labels; LinCIR loads the whole model."""
    loaded = []
    meta = SimpleNamespace(meta={"version": "3.8.0"})
    spacy = SimpleNamespace(__version__="3.8.0", load=lambda name, exclude: loaded.append(exclude) or meta)
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    taggers.SpacyTagger()
    assert loaded == [["ner", "lemmatizer"]]


def test_keywords_by_spacy():
    pytest.importorskip("spacy", reason="spaCy is not installed")
    pytest.importorskip("en_core_web_sm", reason="spaCy's model is not installed")
    tagger = load_tagger("auto")
    assert tagger.name.startswith("spaCy 3.")
    said = ["A photo of a red folder that has a lock", "Is shiny, and silver"]
    assert mask_keywords(said, tagger, Random(0)) == ["$ of $ that has $", "is $ , and $"]


def test_keywords_by_nltk():
    nltk = pytest.importorskip("nltk", reason="NLTK is not installed")
    tagger = nltk.tag.PerceptronTagger(load=False)
    learnt = [("the", "DT"), ("dog", "NN"), ("and", "CC"), ("runs", "VBZ"), (",", ",")]
    tagger.train([learnt] * 20)
    found = taggers.NltkTagger(tagger)
    assert mask_keywords(["The dog, and the dog runs"], found, Random(0)) == ["$ , and $ runs"]


def test_four_parts_of_eight_captions_are_lincirs_thirty_two(world, tmp_path):
    clip = load_clip(str(world / "models" / "clip-small"), torch.device("cpu"), torch.float32)
    captions = load_captions(write_captions(tmp_path / "c.txt", [f"a cat on {i} dogs" for i in range(40)]))
    network = Phi(40, 80, 32, dropout=0)

    def learnt(parts):
        torch.manual_seed(0)
        network.zero_grad()
        losses = [
            part.item() for part in each(Lincir(captions).loss(clip, network, 32, step=Step(0, Random(0), parts)))
        ]
        return sum(losses), torch.cat([own.grad.flatten() for own in network.parameters()])

    def each(parts):
        for part in parts:
            part.backward()
            yield part

    (loss, gradient), (whole_loss, whole) = learnt(4), learnt(1)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert (gradient - whole).norm() < 1e-5 * whole.norm()


BOTH = """
from contextlib import suppress
from cig.cli.main import main
for call in {calls!r}:
    with suppress(SystemExit):  # a call's end
        main(call)
"""


@pytest.mark.slow
def test_two_processes_are_one(world, tmp_path):
    """Of LinCIR and of Pic2Word, by the command line."""
    captions = write_captions(tmp_path / "c.txt", [f"a cat on {i} dogs" for i in range(20)])
    write_noise(tmp_path / "pictures")
    few = ["--clip", str(world / "models" / "clip-small"), "--steps", "2", "--batch-size", "8", "--dropout", "0"]
    jobs = [["lincir", captions], ["pic2word", str(tmp_path / "pictures")]]

    def trained(processes):
        home = tmp_path / str(processes)
        calls = [
            ["train", "phi", data, "--objective", name, "--out", str(home / name), "--device", "cpu", *few]
            for name, data in jobs
        ]
        (tmp_path / "both.py").write_text(BOTH.format(calls=calls))
        start = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", f"{processes}", "--num_machines", "1"]
        start += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
        command = [sys.executable, *(start if processes > 1 else []), str(tmp_path / "both.py")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return [read_tensors(home / name / loop.CHECKPOINT)["facts"]["loss"] for name, _ in jobs]

    assert trained(2) == pytest.approx(trained(1), rel=1e-5)


# Pictures and pairs


@pytest.fixture
def pictures(tmp_path):
    """a.png to e.png, each of one colour; c.png is none."""
    for number, name in enumerate("abcde"):
        Image.new("RGB", (8, 8), (50 * number, 0, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"\x89PNG, and no more")
    return tmp_path


def test_a_picture_that_cannot_be_read_gives_its_place_to_the_next(pictures, capsys):
    ledger = pictures / "out" / "unreadable.jsonl"
    names = [f"{name}.png" for name in "abcde"]
    decoder = Decoder(
        names, lambda i: pictures / names[i], Preprocess(8), unreadable=UnreadablePictures(ledger), workers=2
    )
    places, pixels = decoder.read([0, 2, 4], following=[2])
    assert (places, len(pixels)) == ([0, 3, 4], 3)
    assert torch.equal(pixels[1], decoder.read([3], ())[1][0])
    assert [json.loads(line)["picture"] for line in ledger.read_text().splitlines()] == ["c.png"]
    assert "c.png: not a whole picture" in capsys.readouterr().err
    with ledger.open("a") as file:
        file.write('{"picture": "to')
    assert list(UnreadablePictures(ledger).reasons) == ["c.png"]


def test_a_folder_of_nothing_that_can_be_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    (tmp_path / "b.png").write_bytes(b"no")
    source = pixel_source(str(tmp_path), 8, tmp_path / "out")
    with pytest.raises(InputError, match=r"too many pictures in a row cannot be read.*\.png: not a whole"):
        source.of(Step(0, Random(0)), 2)


def test_drawn_pictures_of_another_size_are_told(tmp_path):
    with pytest.raises(MismatchError, match="sees pictures of 224 pixels, and those of icons/train have 64"):
        pixel_source("icons/train", 224, tmp_path).of(Step(0, Random(0)), 2)


@pytest.mark.parametrize("kind", ["pictures", "table", "drawn pictures", "drawn pairs"])
def test_training_follows_the_preprocessing_of_the_clip(tmp_path, kind):
    """White, of files and as the paper of drawn icons, is 1 by a mean and a deviation of 0.5."""
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    (tmp_path / "white").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (90, 70), "white").save(tmp_path / "white" / name)
    table = write_pairs(tmp_path, [("white/a.png", "a"), ("white/b.png", "b")])
    source = {"pictures": str(tmp_path / "white"), "table": table}
    load = pixel_source if "pictures" in kind else pair_source
    data = load(source.get(kind, "icons/train"), 64, tmp_path / "out", preprocess=load_clip_preprocess(tmp_path, 64))
    pixels = data.of(Step(0, Random(0)), 2).pixels
    assert (pixels.shape, float(pixels.max())) == ((2, 3, 64, 64), 1.0)
    assert (float(pixels.min()) == 1.0) == ("drawn" not in kind)


def test_a_link_to_nothing_is_named_when_it_is_read(world, tmp_path):
    home = shutil.copytree(world / "CIRR", tmp_path / "CIRR", symlinks=True)
    first = sorted((home / "dev").glob("*.png"))[0]
    first.unlink()
    first.symlink_to("nowhere")
    found = load_pictures("cirr/val", home)
    assert first in found.paths


def test_a_step_sees_a_picture_once_at_most(pictures):
    with pytest.raises(UsageError, match="--batch-size 6 is more than the 5 pictures"):
        pixel_source(str(pictures), 8, pictures / "out").of(Step(0, Random(0)), 6)


def write_noise(folder):
    folder.mkdir()
    for i in range(20):
        Image.effect_noise((64, 64), 10 * i + 10).convert("RGB").save(folder / f"{i}.png")


def write_pairs(folder, rows):
    (folder / "pairs.csv").write_text("picture,caption\n" + "".join(f"{name},{text}\n" for name, text in rows))
    return str(folder / "pairs.csv")


def test_pairs_of_a_table(pictures):
    rows = [("a.png", "dark"), ("a.png", "black"), ("b.png", "dark"), ("d.png", ""), ("gone.png", "?")]
    rows += [("e.png", "red")]
    source = pair_source(write_pairs(pictures, rows), 8, pictures / "out")
    assert source.identity["pairs"] == "4"
    told = "1 without a caption: row 4; 1 whose picture is not there: gone.png"
    assert source.identity["left out"] == told
    batch = source.of(Step(0, Random(0)), 4)
    said = list(zip(batch.ids, batch.captions, strict=True))
    assert sorted(said) == sorted(row for row in rows if row[0] != "gone.png" and row[1])
    for i, (name, text) in enumerate(said):
        true = [other == name or words == text for other, words in said]
        assert batch.positives[i].tolist() == true
    assert batch.pixels.shape == (4, 3, 8, 8)
    assert sorted(source.captions(9, Random(0))) == ["black", "dark", "dark", "red"]
    with pytest.raises(UsageError, match="more than the 4 pairs"):
        source.of(Step(0, Random(0)), 5)


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd.png", "x/../../a.png", "a\x07.png", ""])
def test_a_picture_outside_of_the_tables_folder_is_refused(pictures, name):
    with pytest.raises(InputError, match=r"pairs.csv, row 1: "):
        pair_source(write_pairs(pictures, [(name, "a")]), 8, pictures / "out")


def test_a_clip_learns_from_a_table(tmp_path):
    rows = [{"image": f"in/{i}.png", "text": f"number {i} of a red cat"} for i in range(20)]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_noise(tmp_path / "in")
    few = {"steps": 3, "batch_size": 8, "size": "tiny", "loop": LoopFlags(save_every=2, device="cpu")}
    verbs.clip(str(table), out=tmp_path / "clip", **few)
    assert load_clip(str(tmp_path / "clip"), torch.device("cpu"), torch.float32).size == 64
    assert json.loads((tmp_path / "clip" / "training.json").read_text())["about"]["pairs"] == "20"


# Files


@pytest.mark.parametrize(
    ("objective", "network", "kind", "ema", "files"),
    [
        ("lincir", Phi, PHI, 0.0, ["phi_000000006.pt", "phi_best.pt", "phi_latest.pt"]),
        ("lincir", Phi, PHI, 0.9, ["ema_phi_000000006.pt", "ema_phi_best.pt", "ema_phi_latest.pt"]),
        (
            "searle",
            Phi,
            PHI,
            0.0,
            [
                "checkpoints/phi_2.pt",
                "checkpoints/phi_best.pt",
                "checkpoints/phi_last.pt",
                "hyperparameters.json",
            ],
        ),
        ("pic2word", Im2Text, IM2TEXT, 0.0, ["epoch_2.pt", "epoch_best.pt", "epoch_latest.pt"]),
    ],
)
def test_published_layouts_are_read_again(world, tmp_path, objective, network, kind, ema, files):
    clip = load_clip(str(world / "models" / "clip-small"), torch.device("cpu"), torch.float32)
    phi = network(40, 80, 32, dropout=0)
    about = {"objective": objective, "dropout": 0.25}
    facts = {"steps": 6, "plan": {"batch": 4, "ema": ema}, "about": about, "best": {"steps": 6}}
    phi_files.write_phi(phi, tmp_path, "published", facts=facts, clip=clip, items_per_pass=10)
    written = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(written) == files
    read = load_phi(tmp_path / files[0], clip, kind)
    features = torch.randn(3, 40)
    assert torch.equal(read(features), phi(features))
    content = read_tensors(tmp_path / files[0])
    assert content["epoch"] == 2
    first = next(iter(content[kind.key]))
    assert first == ("module.layers.0.0.weight" if objective == "pic2word" else "layers.0.weight")


def test_searles_programs_find_the_clip_and_the_dropout(tmp_path, world):
    """`validate.py --eval-type phi` reads these two beside `checkpoints`."""
    clip = load_clip(str(world / "models" / "clip-small"), torch.device("cpu"), torch.float32)
    clip.identity["source"] = "openai/clip-vit-large-patch14"
    about = {"objective": "searle", "dropout": 0.25}
    facts = {"steps": 1, "plan": {"batch": 1, "ema": 0}, "about": about}
    phi_files.write_phi(Phi(40, 80, 32), tmp_path, "published", facts=facts, clip=clip)
    found = json.loads((tmp_path / "hyperparameters.json").read_text())
    assert (found["clip_model_name"], found["phi_dropout"]) == ("ViT-L/14", 0.25)


def test_pic2words_programs_find_the_clip(world):
    """Under OpenAI's names: a joint matrix of queries, keys and values, projections from the left."""
    clip = load_clip(str(world / "models" / "clip-small"), torch.device("cpu"), torch.float32)
    weights, text, vision = openai_weights(clip, 100.0), clip.text.state_dict(), clip.vision.state_dict()
    layer = "text_model.encoder.layers.1."
    joint = torch.cat([text[f"{layer}self_attn.{letter}_proj.weight"] for letter in "qkv"])
    assert torch.equal(weights["transformer.resblocks.1.attn.in_proj_weight"], joint)
    assert torch.equal(weights["transformer.resblocks.1.mlp.c_fc.bias"], text[f"{layer}mlp.fc1.bias"])
    assert torch.equal(weights["visual.proj"], vision["visual_projection.weight"].T)
    assert torch.equal(weights["ln_final.weight"], text["text_model.final_layer_norm.weight"])
    assert weights["logit_scale"].item() == pytest.approx(4.6052, abs=1e-4)
    assert sum(map(torch.numel, weights.values())) == 1 + sum(
        own.numel() for tower in (clip.text, clip.vision) for own in tower.parameters()
    )
    assert not [name for name in weights if "model." in name or "self_attn" in name or "_proj.weight" in name[:-13]]


def test_what_was_learnt_from_is_in_the_file(tmp_path):
    from safetensors import safe_open

    about = {"objective": "lincir", "keywords": "fake", "clip": {"source": "x"}}
    facts = {"steps": 1, "plan": {"batch": 1, "ema": 0}, "about": about}
    phi_files.write_phi(Phi(4, 8, 4), tmp_path, "safetensors", facts=facts, clip=None)
    with safe_open(tmp_path / "phi.safetensors", "pt") as file:
        assert json.loads(file.metadata()["about"]) == about


# The whole


def train(world, out, objective="pic2word", data="shop", **flags):
    """Four steps of eight, with a checkpoint every second one."""
    source = str(world / data) if data == "shop" else str(data)
    loops = LoopFlags(save_every=2, device="cpu")
    asked = {"steps": 4, "batch_size": 8, "lr": 1e-2, "loop": loops, **flags}
    train_phi.phi(source, clip=str(world / "models" / "clip-small"), out=out, objective=objective, **asked)
    return json.loads((out / "training.json").read_text())


@pytest.fixture
def shop(world):
    return ValidateFlags(validate="folder", validate_root=world / "shop", measure="recall@10")


@pytest.mark.slow
def test_scores_are_those_of_cig_evaluate(world, shop, tmp_path):
    facts = train(world, tmp_path, validating=shop)
    clip, phi = str(world / "models" / "clip-small"), tmp_path / "phi_last.safetensors"
    data, asked = Data("folder", world / "shop"), Searching(method="pic2word", clip=clip, phi=phi)
    cache = FeatureCache()
    method = _search_benchmark.load_searcher(asked, Compute(), cache)
    found = _search_benchmark.search_parts(data.load("val"), method, asked, compute=Compute(), cache=cache)
    assert facts["scores"] == evaluate(found.parts, found.rankings).scores[""]
    assert next(iter(facts["scores"])) == "recall@10"


def test_the_best_is_kept_beside_the_last(world, shop, tmp_path, monkeypatch, capsys):
    scores, states = iter([3.0, 5.0, 4.0]), []

    def fake(validation, family, clip, phi):
        def score():
            states.append({name: own.detach().half() for name, own in phi.state_dict().items()})
            return {"recall@10": next(scores)}

        return score

    monkeypatch.setattr(room, "validator", fake)
    facts = train(world, tmp_path, steps=6, validating=shop)
    best, last = (read_phi(tmp_path / name, IM2TEXT)[0] for name in ("phi.safetensors", "phi_last.safetensors"))
    assert all(torch.equal(best[name], states[1][name]) for name in best)
    assert all(torch.equal(last[name], states[2][name]) for name in last)
    assert facts["best"] == {"steps": 4, "recall@10": 5.0}
    told = "best on folder/val: step 4 (recall@10 5.00); last: recall@10 4.00"
    assert told in (tmp_path / "README.md").read_text()
    assert told in capsys.readouterr().err
    assert [json.loads(line)["recall@10"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [3, 5, 4]


@pytest.mark.slow
def test_a_resumed_phi_has_the_same_bits_and_leaves_out_the_same(world, tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    write_noise(folder)
    (folder / "7.png").write_bytes(b"\x89PNG")
    facts = train(world, tmp_path / "whole", data=folder)
    assert facts["unreadable"]["count"] == 1
    assert "1 pictures (7.png)" in (tmp_path / "whole" / "README.md").read_text()
    saved = loop.save

    def save_and_stop(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(world, tmp_path / "broken", data=folder)
    train(world, tmp_path / "broken", data=folder)
    one, two = ((tmp_path / name / "phi.safetensors").read_bytes() for name in ("whole", "broken"))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["lincir", "pic2word"])
def test_the_loss_falls(world, tmp_path, objective):
    captions = write_captions(tmp_path / "c.txt", [f"a {a} {b}" for a in ("red", "old") for b in ("cat", "cup", "hat")])
    data = captions if objective == "lincir" else "shop"
    train(world, tmp_path / "out", objective, data, steps=40, batch_size=16, dropout=0.0, start=None)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.95 * losses[0]


def test_a_phi_begins_with_another(world, tmp_path):
    models = world / "models"
    begun = train(world, tmp_path / "a", steps=1, lr=1e-9, start=models / "pic2word-small.pt")
    weights, _ = read_phi(models / "pic2word-small.pt", IM2TEXT)
    found, _ = read_phi(tmp_path / "a" / "phi.safetensors", IM2TEXT)
    assert all(torch.allclose(found[name].float(), own, atol=1e-3) for name, own in weights.items())
    assert begun["about"]["start"]["source"].endswith("pic2word-small.pt")
    train(world, tmp_path / "b", steps=1, start=models / "phi-small.pt", layout="published")
    clip = load_clip(str(models / "clip-small"), torch.device("cpu"), torch.float32)
    assert isinstance(load_phi(tmp_path / "b" / "epoch_latest.pt", clip).phi, Phi)
    with pytest.raises(MismatchError, match="come in pairs"):
        train(world, tmp_path / "c", start=models / "phi-large.pt")


def test_a_pace_is_the_papers_unless_said():
    own = TrainingDefaults(steps=100, batch=10, warmup=50, passes=3)
    assert own.flags(0)["steps"] == 100
    assert own.flags(25)["steps"] == 8  # 75 items in steps of 10
    assert own.flags(25, steps=40, lr=None, schedule="cosine")["warmup"] == 4
    assert own.flags(25, steps=40)["warmup"] == own.flags(25, steps=80)["warmup"] == 50, "one can go on with more steps"
    assert own.flags(25, steps=40, warmup=7, lr=0.5) == {
        "steps": 40,
        "batch_size": 10,
        "lr": 0.5,
        "warmup": 7,
        "schedule": "constant",
        "weight_decay": 0.01,
        "beta2": 0.999,
        "eps": 1e-8,
        "decay_biases": True,
    }


def test_pic2words_optimiser_is_the_published_one():
    """Its repository's `main.py`: a second group of biases without decay, betas 0.9 and 0.98, eps 1e-6."""
    flags = Pic2Word.defaults.flags(0, steps=100_000)
    plan = Plan(flags.pop("steps"), flags.pop("batch_size"), **flags)
    assert (plan.beta2, plan.eps, plan.weight_decay) == (0.98, 1e-6, 0.1)
    vectors, matrices = new_state(Im2Text(4, 8, 4), plan).optimizer.param_groups
    assert [weight.ndim for weight in vectors["params"]] == [1, 1, 1]
    assert [weight.ndim for weight in matrices["params"]] == [2, 2, 2]
    assert (vectors["weight_decay"], matrices["weight_decay"]) == (0.0, 0.1)
    assert (vectors["betas"], vectors["eps"]) == ((0.9, 0.98), 1e-6)


def test_pic2words_rate_falls_after_its_rise_to_zero():
    plan = Plan(110, lr=1.0, warmup=10, schedule="cosine-after-warmup")
    rates = [plan.rate(step) for step in (0, 4, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.0])


@pytest.mark.parametrize("objective", [Lincir, Searle])
def test_other_objectives_have_torchs_betas(objective):
    flags = objective.defaults.flags(0, steps=10)
    plan = Plan(flags.pop("steps"), flags.pop("batch_size"), **flags)
    (group,) = new_state(Phi(4, 8, 4), plan).optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.01)


def test_a_checkpoint_of_before_had_the_betas_of_before():
    now = asdict(Plan(4, beta2=0.98))
    then = {name: value for name, value in now.items() if name not in ("beta2", "eps", "decay_biases", "clip_norm")}
    assert Plan.binding(then) == Plan.binding(now)
    assert Plan.binding(then) != Plan.binding(asdict(Plan(4, beta2=0.999)))


@pytest.mark.parametrize(("norm", "moved"), [(1.0, 1.0), (0.0, 100.0)])
def test_a_gradient_is_clipped_or_not(tmp_path, norm, moved):
    """Of 100: AdamW's first moment is a tenth of what is left of it."""
    model = torch.nn.Linear(1, 1, bias=False)
    plan = Plan(1, batch=1, lr=0.1, warmup=1, clip_norm=norm)
    loop.train(model, lambda step: 100 * model.weight.sum(), plan, out=tmp_path, export=lambda facts: None, inputs={})
    (state,) = read_tensors(tmp_path / loop.CHECKPOINT)["optimizer"]["state"].values()
    assert state["exp_avg"].item() == pytest.approx(moved / 10)


def test_wrong_calls(world, shop, tmp_path):
    with pytest.raises(UsageError, match="--column is for --objective lincir"):
        train(world, tmp_path, column="a")
    with pytest.raises(UsageError, match="--scale is for --objective pic2word"):
        train(world, tmp_path, "lincir", scale=60.0)
    for flag in ({"beta2": 1.0}, {"eps": 0.0}, {"clip_norm": -1.0}):
        with pytest.raises(UsageError, match=next(iter(flag)).replace("_", "-")):
            train(world, tmp_path, **flag)
    with pytest.raises(UsageError, match="--measure goes with --validate"):
        train(world, tmp_path, validating=ValidateFlags(measure="map@10"))
    with pytest.raises(UsageError, match='no measure "map@7"'):
        train(world, tmp_path, validating=replace(shop, measure="map@7"))
    with pytest.raises(UsageError, match="are hidden"):
        train(world, tmp_path, validating=ValidateFlags(validate="cirr/test", validate_root=world))
    assert not list(tmp_path.iterdir())


def test_by_the_command_line(world, tmp_path, capsys):
    captions = write_captions(tmp_path / "c.csv", ["a cat", "two dogs"])
    command = ["train", "phi", captions, "--out", str(tmp_path / "out")]
    command += ["--clip", str(world / "models" / "clip-small"), "--keywords", "stopwords", "--column", "text"]
    command += ["--steps", "2", "--batch-size", "2", "--device", "cpu", "--ema", "0.9", "--layout", "published"]
    command += ["--validate", "folder", "--validate-root", str(world / "shop"), "--validate-limit", "3"]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert not end.value.code
    assert "best on folder/val: step 2" in capsys.readouterr().err
    names = {"ema_phi_000000002.pt", "ema_phi_best.pt", "ema_phi_latest.pt"}
    assert names < {path.name for path in (tmp_path / "out").iterdir()}
    assert json.loads((tmp_path / "out" / "training.json").read_text())["about"]["validate"]["queries"] == 3


def test_a_picture_that_comes_twice_in_a_step_is_known(pictures):
    source = pixel_source(str(pictures), 8, pictures / "twice")
    count = len(source.pictures) - 1
    steps = [source.of(Step(number, Random(0)), count) for number in range(3)]
    for batch in steps:
        names = [[one == other for other in batch.names] for one in batch.names]
        assert batch.same.tolist() == names
    assert any(len(set(batch.names)) < count for batch in steps), "a step goes over the end of a pass"


def test_each_process_reads_its_own_share(pictures, monkeypatch):
    monkeypatch.setattr("cig.training.processes.world", lambda: 2)
    monkeypatch.setattr(
        "cig.training.processes.gathered_indices", lambda indices: [*indices, *indices]
    )  # the others', here its own
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr("cig.training.processes.rank", lambda rank=rank: rank)
        source = pixel_source(str(pictures), 8, pictures / "out")
        shares.append(source.of(Step(0, Random(0)), 4).names)
        assert source.decoder.ahead.keys() == set(source.order.indices(1, 4)[2 * rank : 2 * rank + 2])
    assert [len(own) for own in shares] == [2, 2]
    monkeypatch.undo()
    assert (*shares[0], *shares[1]) == pixel_source(str(pictures), 8, pictures / "out").of(Step(0, Random(0)), 4).names
