"""The embedded corpus: pinned by digest, count, first and last item; names, wordings, duplicates that one can check."""

import errno
import hashlib
import json
import lzma
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import duplicates
import grammar
import likeness
import open_test
import queries
import wordings
from cig.benchmarks import icons as room
from cig.benchmarks import load_benchmark
from cig.benchmarks._icons.altered import AlteredScenes
from cig.benchmarks._icons.captions import article, caption, distracted, points, side_of
from cig.benchmarks._icons.corpus import (
    INKS,
    SPLITS,
    Icon,
    assets,
    licences,
    pack,
    paint,
    picture_name,
    read_set,
    unpack,
)
from cig.benchmarks._icons.pairs import IconPairs, true_of
from cig.benchmarks._icons.triplets import IconTriplets
from cig.errors import InputError, OutputError, UsageError
from cig.evaluation.score import evaluate
from cig.training.data import load_pairs
from cig.types import Ranking

DIGESTS = {
    "val": "f930b66856ab854b368536aee519661d83db03413048152d415c4932aeaf9b67",
    "test": "043259121e170e41cac2879fe0f4716ab45dc6a3db392ffa1c38f0aa2f8a85ba",
}
# Of icons/test, without the tags that tell how familiar training is with a target: frozen on 2026-11-24, before any
# model was trained on this corpus.
FROZEN = "0cb5c43369cd7a9683cba518d65e35b925dabde024a0d5291e5b44889dcc4054"
# Of what is packed, as it is unpacked: drawings by set, and corpus.json, their names.
CORPUS = {
    "mdi": "3f1d61e97cfc0496faa6ea4e24c8e95a7127d4bf503c6a4ba2b87553ee2f407a",
    "ph": "9dc48faf446df7331d62f236dea87a016fce6a6109c9bc614ad4a1b370b7da9a",
    "material-symbols": "d757d460477c5827176a991b86608d3aec599b9b13748096a692136bfa5eb8fb",
    "lucide": "5101449b40bf34efe71cc157610d609516f0d6c9aca8d175886502f40fe27f99",
    "carbon": "8107b4d9a00c9a2329b2b555451dd1a0762b04760076bd7be620b3d490adbd30",
    "bi": "6a2f0935512b22c867cb2879454220c8a65cafbff77ebbfc2551a106825d5c27",
    "mingcute": "dd0cd6f2e829734a0051c9ebf675838fbb542d26b34d943799d3caa5bc485cc5",
    "iconoir": "83959e7edf1c83705c89fcf8185078557b3fbcc20e6e817c372f1ad7f26661df",
    "hugeicons": "abd5592969c4d89ddd65fca25dad363a3487cc74c047874c4def560521f6687c",
    "tabler": "e0f0bc02c1ee4b46cd4009b788c6d8389d2b94f5b5b02fe9a2a046dd858c4f47",
    "fluent": "0192ea8b7c3d911be3cb023d398f0100036d44148b9209723a8bb642e5406526",
    "tdesign": "2d50b7fca50893061e79e46c2ad373cf414c58c8da828a02839cfeac8cfe0ffc",
    "mynaui": "18f11e8f51ca5284f658eadb69272833b0629afa2c271f3473540a28282082b6",
    "clarity": "45a159598f661497bd5e022a6c42fd4f00a7d3b9f73aabe96335691a8b9c79f7",
    "f7": "c53e17d455be1febf693fbf4ad0c4e4f26bfcdd8301300707234956e4fb4eb7a",
    "majesticons": "a90f20cb0d7e5926a456e42913bff786c3af26e7a63c843287c4d81ef41a9b30",
    "stash": "0abfde152629992919ce2c84d448e8a6daef76a4c92b73e657acf24055122ac4",
    "proicons": "c756a4805173fcd0dba06932b38f0a3b20cf9c971ebdf5bbafb3d59e289344c1",
    "corpus.json": "16cc3f46c7bb7240a4d66f9d2bbd54e4a6fb68b50b1d3387a65659560d98d28b",
}
DATASHEET = Path(__file__).parents[2] / "docs" / "icons.md"


# What is shipped


def content_of(split):
    return unpacked(f"{split}.json")


def unpacked(name):
    return lzma.decompress(assets().joinpath(f"{name}.xz").read_bytes())


@pytest.mark.parametrize("split", DIGESTS)
def test_the_queries_are_the_pinned_ones(split):
    assert hashlib.sha256(content_of(split)).hexdigest() == DIGESTS[split]


def test_what_icons_test_asks_is_frozen():
    content = json.loads(content_of("test"))
    queries = [[*row[:5], row[5][0], row[6]] for row in content["queries"]]
    assert digest_of_parts(queries, content["gallery"]) == FROZEN


def digest_of_parts(*parts):
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


@pytest.mark.slow
def test_the_queries_rebuild_to_the_same_bytes():
    assert hashlib.sha256(queries.encode(queries.build("val"))).hexdigest() == DIGESTS["val"]


def test_the_corpus_is_the_pinned_one():
    counts = {prefix: len(read_set(prefix)[0]) for prefixes in SPLITS.values() for prefix in prefixes}
    assert sum(counts.values()) == 49_573
    assert (counts["tabler"], counts["fluent"], counts["mdi"]) == (5_534, 5_562, 5_727)
    first, last = read_set("tabler")[0][0], read_set("proicons")[0][-1]
    assert (first.name, last.name) == ("a-b", "zoom-out")
    assert {facts["licence"] for facts in licences().values()} == {"MIT", "Apache-2.0", "ISC"}


@pytest.mark.slow
def test_drawings_and_names_are_the_pinned_ones():
    parts = {name: unpacked(name) for name in CORPUS}
    assert {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()} == CORPUS
    assert [*json.loads(parts["corpus.json"])["sets"], "corpus.json"] == [*CORPUS]
    shipped = {path.name.removesuffix(".xz") for path in assets().iterdir() if path.name.endswith(".xz")}
    assert shipped == {*CORPUS, *(f"{split}.json" for split in DIGESTS)}


@pytest.mark.slow
def test_the_datasheet_has_the_digest_that_build_prints():
    printed = hashlib.sha256(b"".join(unpacked(name) for name in CORPUS)).hexdigest()
    assert re.findall(r"`digest ([0-9a-f]{64})`", DATASHEET.read_text()) == [printed]


def test_near_duplicates_are_those_of_the_datasheet():
    counts = json.loads(unpacked("corpus.json"))["near_duplicates"]
    assert [*counts] == [*SPLITS["train"]]
    taken_out, kept = sum(counts.values()), sum(len(read_set(prefix)[0]) for prefix in counts)
    assert (taken_out, kept) == (7_720, 29_373)
    sentence = f"taken out before any training: {taken_out:,} of {taken_out + kept:,}."
    assert sentence in DATASHEET.read_text()


@pytest.mark.parametrize("name", ["clip", "lincir", "pic2word", "large", "large-pic2word", "generator"])
def test_a_shipped_card_tells_data_command_seconds_and_metrics(name):
    text = assets().joinpath(name, "README.md").read_text()
    facts = json.loads(assets().joinpath(name, "training.json").read_text())
    shown = json.loads(re.search(r"```json\n(.*)```", text, re.DOTALL)[1])
    assert shown == {key: facts[key] for key in ("plan", "about")}
    *_, typed = re.findall(r"^    cig train (.*)", text.replace("\\\n", ""), re.MULTILINE)
    flags, plan = dict(re.findall(r"--([\w-]+) (\S+)", typed)), facts["plan"]
    data = "icons/altered" if name == "generator" else "icons/train"
    assert typed.split()[1] == facts["about"]["data"].removesuffix(", drawn") == data
    assert [int(flags[flag]) for flag in ("steps", "batch-size", "warmup", "save-every")] == [
        plan[key] for key in ("steps", "batch", "warmup", "save_every")
    ]
    assert (float(flags["lr"]), flags["dtype"]) == (plan["lr"], plan["autocast"])
    assert f"{round(facts['seconds'])} s " in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    assert set(rows) <= set(DATASHEET.read_text().splitlines())


def test_all_that_is_shipped_is_within_40_MB():
    files = [path for path in assets().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40_000_000
    texts = [path.read_text() for path in files if path.suffix in (".json", ".md")]
    assert not [text for text in texts if re.search(r'": "/', text)], "no machine's folders"


@pytest.mark.slow
def test_val_and_test():
    val, test = load_benchmark("icons/val"), load_benchmark("icons/test")
    assert (len(val.queries), len(val.gallery)) == (4_982, 14_806)
    assert (len(test.queries), len(test.gallery)) == (9_601, 16_569)
    assert len({query.id for query in test.queries}) == 9_601
    query = val.queries[0]
    assert (query.id, query.captions) == ("val-00000", ("with a ban in the corner",))
    assert query.reference == "fluent/document-multiple-24-regular.orange.png"
    assert query.relevant == {"fluent/document-multiple-prohibited-24-regular.orange.png": 2}
    assert (query.tags[0], query.cluster) == ("badge added", "document multiple")
    assert (val.queries[-1].id, test.queries[-1].id) == ("val-04981", "test-09600")
    gallery = set(val.gallery)
    assert all(set(query.relevant) <= gallery for query in val.queries)
    assert all(query.reference in val.images for query in val.queries)
    assert Image.open(val.images[query.reference]).size == (64, 64)


@pytest.mark.slow
def test_the_targets_of_test_are_closed():
    part = load_benchmark("icons/test", limit=3)
    assert len(part.queries) == 3
    assert not any(query.relevant for query in part.queries)
    with pytest.raises(UsageError, match="hidden"):
        evaluate((part,), [Ranking(tuple(query.id for query in part.queries), ((),) * 3, ((),) * 3, ((),) * 3)])


@pytest.mark.slow
def test_pictures_are_painted_once(monkeypatch):
    part = load_benchmark("icons/val", limit=1)
    monkeypatch.setattr(room, "_paint_all", lambda *_: pytest.fail("painted again"))
    assert load_benchmark("icons/val", limit=1).images == part.images


def test_a_painting_that_fails_leaves_nothing(monkeypatch, tmp_path):
    def fail(split, wanted, folder):
        (folder / "half").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room, "_paint_all", fail)
    with pytest.raises(OutputError, match=rf"cannot be written to {tmp_path}: No space left on device"):
        room.painted("val", ["tabler/eye.red.png"], tmp_path)
    assert not list(tmp_path.iterdir())


# Drawings


def test_pack_keeps_sixteen_levels():
    drawings = np.zeros((2, 64, 64), np.uint8)
    drawings[0, 0, :3] = 255, 17, 100
    back = unpack(pack(drawings), 2)
    assert back[0, 0, :4].tolist() == [255, 17, 102, 0]
    assert not back[1].any()


@pytest.mark.parametrize("content", [b"", b"no archive", pack(np.zeros((1, 64, 64), np.uint8))])
def test_broken_packs_are_refused(content):
    with pytest.raises(InputError, match="install cig again"):
        unpack(content, 2)


def test_paint():
    drawing = np.zeros((64, 64), np.uint8)
    drawing[0, :2] = 255, 102
    picture = paint(drawing, "red")
    assert [picture.getpixel((x, 0)) for x in range(3)] == [INKS["red"], (241, 169, 169), (255, 255, 255)]


def drawn(width, shape="ellipse", box=(10, 10, 54, 54)):
    image = Image.new("L", (64, 64))
    getattr(ImageDraw.Draw(image), shape)(box, outline=255, width=width)
    return np.asarray(image)


def test_duplicates_see_through_stroke_size_and_place():
    held = np.stack([drawn(4)])
    others = [drawn(3), drawn(5), drawn(3, box=(2, 20, 30, 48)), drawn(4, "rectangle"), drawn(22)]
    assert duplicates.near_duplicates(np.stack(others), held).tolist() == [True, True, True, False, False]


@pytest.mark.slow
def test_training_has_no_near_duplicate_of_what_is_held_out():
    held = np.concatenate([read_set(prefix)[1] for split in ("val", "test") for prefix in SPLITS[split]])
    sample = read_set("lucide")[1][::3]
    assert duplicates.nearest(sample, held)[0].max() < duplicates.THRESHOLD + 0.01  # drawings were rounded to 16 levels


def test_what_a_clip_holds_to_be_alike_is_counted():
    cosines = {"val": np.array([0.96, 0.5, 0.995, 0.985]), "test": np.array([0.5, 0.985, 0.2, 0.9])}
    _, _, *lines = likeness.table(cosines, np.array([False, False, True, False]))
    counts = [tuple(line.split()) for line in lines]
    assert counts[:3] == [("0.95", "val", "3", "2"), ("0.95", "test", "1", "1"), ("0.95", "either", "4", "3")]
    assert counts[6:] == [("0.99", "val", "1", "0"), ("0.99", "test", "0", "0"), ("0.99", "either", "1", "0")]
    assert sorted(likeness.chosen(cosines["val"], 0.98)) == [2, 3]
    rows = likeness.features(np.stack([drawn(4), drawn(3), drawn(4, "rectangle")]))
    alike, other = rows[0] @ rows[1], rows[0] @ rows[2]
    assert other < alike < 1.0001
    assert likeness.sheet([5, 7], np.ones(8), np.arange(8)).size == (5 * 220, 84)


# Names


@pytest.mark.parametrize(
    ("prefix", "name", "key"),
    [
        ("mdi", "folder-lock-outline", ("folder", "lock", "", "", "outlined")),
        ("mdi", "arrow-left-bold-circle", ("arrow bold", "", "circle", "left", "filled")),
        ("mdi", "arrow-bottom-left-thin", ("arrow thin", "", "", "down left", "filled")),
        ("tabler", "circle-dashed-letter-x", ("letter x", "", "dashed circle", "", "outlined")),
        ("tabler", "device-mobile-up", ("device mobile", "up arrow", "", "", "outlined")),
        ("tabler", "message-circle", ("message circle", "", "", "", "outlined")),
        ("lucide", "circle-check", ("check", "", "circle", "", "outlined")),
        ("fluent", "person-square-checkmark-24-filled", ("person", "check", "square", "", "filled")),
        ("fluent", "panel-left-20-regular", ("panel", "", "", "left", "outlined")),
        ("fluent", "person-alert-24-regular", ("person", "bell", "", "", "outlined")),
        ("fluent", "toggle-left-24-regular", ("toggle left", "", "", "", "outlined")),
        ("clarity", "bell-outline-badged", ("bell", "dot", "", "", "outlined")),
        ("hugeicons", "user-add-02", ("user", "plus", "", "", "outlined")),
        ("bi", "arrow-left-right", ("arrow left right", "", "", "", "outlined")),
    ],
)
def test_grammar(prefix, name, key):
    assert grammar.parse(prefix, name).key == key


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("tabler", "brand-github"),
        ("ph", "bell-light"),
        ("fluent", "bell-16-filled"),
        ("fluent", "text-bold-ko-24-filled"),
        ("material-symbols", "home-rounded"),
    ],
)
def test_grammar_leaves_out(prefix, name):
    assert grammar.parse(prefix, name) is None


# Captions


LOCK = Icon("x", "folder-lock", "folder", "lock")


@pytest.fixture(scope="module")
def of_pairs():
    """What a CLIP and a phi read."""
    return said(IconPairs().captions(20_000, Random(0)))


@pytest.fixture(scope="module")
def of_triplets():
    triplets = IconTriplets(20_000)
    return said(triplets.said(range(len(triplets)), 0, Random(0)))


@pytest.fixture(scope="module")
def of_altered():
    scenes = AlteredScenes(5_000)
    return said([text for view in range(scenes.views) for text in scenes.said(range(len(scenes)), view, Random(0))])


def said(captions):
    return " | ".join(text.replace(",", " |") for text in captions)


def phrase(form):
    """Whatever a form says: each slot is any word for it that the corpus has, by a name of ours or by a synonym."""
    icons = [icon for prefixes in SPLITS.values() for prefix in prefixes for icon in read_set(prefix)[0]]
    attributes = "badge", "enclosure", "direction", "style"
    kinds = {kind: {getattr(icon, kind) for icon in icons} - {""} for kind in attributes}
    kinds["badge"] |= {*wordings.SYNONYMS.values()}
    kinds["style"] |= {*wordings.STYLE_SYNONYMS.values()}
    words = {kind: "|".join(map(re.escape, sorted(names, key=len, reverse=True))) for kind, names in kinds.items()}
    slots = {"ink": "|".join(INKS), "object": r"an? [a-z0-9 ]+", "old_object": "[a-z0-9 ]+", "style": words["style"]}
    slots |= {"badge": f"an? (?:{words['badge']})", "old_badge": words["badge"], "old_style": words["style"]}
    slots |= {"enclosure": f"an? (?:{words['enclosure']})", "old_enclosure": words["enclosure"]}
    slots |= {"direction": words["direction"], "side": "|".join(map(side_of, kinds["direction"]))}
    return re.compile(rf"\b{form.format_map({name: f'(?:{slot})' for name, slot in slots.items()})}\b")


def read_forms(forms, captions):
    return [form for kind in forms.values() for form in kind if phrase(form).search(captions)]


@pytest.mark.slow
def test_wordings_of_test_are_in_no_training_caption(of_pairs, of_triplets, of_altered):
    read = " | ".join([of_pairs, of_triplets, of_altered])
    assert not read_forms(wordings.TEST, read)
    phrases = "with {0}", "has {0} badge", "without the {1}", "no {1} badge"
    for name, other in wordings.SYNONYMS.items():
        said_by = [[form.format(article(noun), noun) for form in phrases] for noun in (name, other)]
        whole = [
            rf"\b(?:{'|'.join(clauses)})(?: badge)?(?= \|| and |$)" for clauses in said_by
        ]  # not "a pen lock": made up
        patterns = [re.compile(pattern) for pattern in whole]
        assert [bool(pattern.search(read)) for pattern in patterns] == [True, False], name
    for style, other in wordings.STYLE_SYNONYMS.items():
        assert [f"is {word}" in read for word in (style, other)] == [True, False]


@pytest.mark.slow
def test_wordings_that_val_has_of_training_are_there_but_for_two_changes(of_pairs, of_triplets, of_altered):
    """And so the test above can find a form that is there."""
    forms = {form for kind in wordings.TRAINING.values() for form in kind}
    assert forms - {*read_forms(wordings.TRAINING, of_triplets)} == {"is {object}"}
    assert forms == {*read_forms(wordings.TRAINING, of_altered)}
    unread = {"is {object}", "is not in the {old_enclosure}", "without the {old_enclosure}"}
    assert forms - {*read_forms(wordings.TRAINING, of_pairs)} == unread


def test_queries_say_what_changes():
    target = Icon("x", "a", "arrow", direction="up left")
    said = {wordings.say("test", ("direction",), LOCK, target, "red", Random(i)) for i in range(30)}
    assert said == {"facing up left", "heading up left", "aims up left"}
    both = wordings.say("val", ("badge", "ink"), LOCK, Icon("x", "b", "folder"), "red", Random(1))
    assert "lock" in both
    assert "red" in both


def test_captions_say_only_what_is_true():
    for i in range(300):
        words = caption(LOCK, "red", Random(i)).replace(",", "").split()
        assert "folder" in words
        assert "lock" in words
        assert not {"blue", "filled", "circle", "left", "no"} & set(words)
    assert (article("eye"), article("user"), article("lock")) == ("an eye", "a user", "a lock")
    assert points(Icon("x", "a", "arrow big"))
    assert not points(Icon("x", "a", "sidebar"))


def test_made_up_words_change_nothing_else():
    said = [distracted("a red folder with a lock", Random(i)) for i in range(200)]
    assert 70 < sum(text == "a red folder with a lock" for text in said) < 130
    for text in said:
        rest = iter(text.split())
        assert all(word in rest for word in ("a", "red", "folder", "with", "a", "lock"))
        assert len(text.split()) <= 9


def test_true_of_asks_only_for_what_is_said():
    icons = [LOCK, LOCK, Icon("x", "c", "folder"), Icon("x", "d", "folder", "lock", style="filled")]
    captions = ["red folder with a lock", "a folder with a lock", "outlined folder", "filled folder with a lock"]
    assert true_of(captions, icons, ["red", "blue", "red", "red"]).tolist() == [
        [True, False, False, True],
        [True, True, False, True],
        [False, False, True, False],
        [False, False, False, True],
    ]


def test_a_batch_is_its_seeds_own():
    pairs = IconPairs()
    one, again, other = pairs.batch(8, Random("0/1")), pairs.batch(8, Random("0/1")), pairs.batch(8, Random("0/2"))
    assert torch.equal(one.pixels, again.pixels)
    assert one.captions == again.captions != other.captions
    assert one.pixels.shape == (8, 3, 64, 64)
    assert one.positives.diagonal().all()


@pytest.mark.slow
def test_plain_captions_are_without_made_up_words():
    learnt = set(" ".join(IconPairs().captions(20_000, Random(0))).replace(",", "").split())
    shares = {}
    for name in ("icons/train", "icons/plain"):
        captions = load_pairs(name).batch(200, Random("0/1")).captions
        shares[name] = sum(bool(set(text.replace(",", "").split()) - learnt) for text in captions) / 200
    assert 0.3 < shares["icons/train"] < 0.7
    assert shares["icons/plain"] < 0.1  # of objects that 20,000 captions did not name


def test_gallery_has_the_target_in_other_inks():
    content = json.loads(content_of("val"))
    inks = Counter(name.partition(".")[0] for name in content["gallery"])
    assert (len(content["gallery"]), len(inks)) == (14_806, 11_096)
    targets = [row[3].partition(".")[0] for row in content["queries"]]
    assert (len(set(targets)), sum(inks[name] > 1 for name in set(targets))) == (3_551, 2_582)
    assert "val's 3,551 distinct targets 2,582 (73%)" in DATASHEET.read_text()
    assert round(100 * sum(inks[name] > 1 for name in targets) / len(targets)) == 78
    assert picture_name(LOCK, "red") == "x/folder-lock.red.png"


def test_an_opening_of_test_is_logged(tmp_path):
    for why in ("to see", "once more"):
        open_test.log(tmp_path / "results.md", why)
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[:3] == ["# Results", "", "## Openings of icons/test"]
    assert [line.rpartition(": ")[2] for line in lines[3:]] == ["to see", "once more"]
