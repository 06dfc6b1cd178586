"""The embedded corpus: pinned by digest, count, first and last item; names, wordings, duplicates that one can check."""

import hashlib
import json
import lzma
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import duplicates
import grammar
import open_test
import queries
import wordings
from cig.benchmarks import icons as room
from cig.benchmarks import load_benchmark
from cig.errors import InputError, UsageError
from cig.evaluation import evaluate
from cig.icons.captions import article, caption, distracted, points
from cig.icons.corpus import INKS, SPLITS, Icon, assets, licences, pack, paint, picture_name, read_set, unpack
from cig.icons.pairs import IconPairs, true_of
from cig.training import load_pairs
from cig.types import Ranking

DIGESTS = {
    "val": "f930b66856ab854b368536aee519661d83db03413048152d415c4932aeaf9b67",
    "test": "043259121e170e41cac2879fe0f4716ab45dc6a3db392ffa1c38f0aa2f8a85ba",
}
# Of icons/test, without the tags that tell how familiar training is with a target: frozen on 2026-11-24, before any
# model was trained on this corpus.
FROZEN = "0cb5c43369cd7a9683cba518d65e35b925dabde024a0d5291e5b44889dcc4054"


# What is shipped


def content_of(split):
    return lzma.decompress(assets().joinpath(f"{split}.json.xz").read_bytes())


@pytest.mark.parametrize("split", DIGESTS)
def test_the_queries_are_the_pinned_ones(split):
    assert hashlib.sha256(content_of(split)).hexdigest() == DIGESTS[split]


def test_what_icons_test_asks_is_frozen():
    content = json.loads(content_of("test"))
    asked = [[*row[:5], row[5][0], row[6]] for row in content["queries"]]
    assert digest_of_parts(asked, content["gallery"]) == FROZEN


def digest_of_parts(*parts):
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def test_the_queries_rebuild_to_the_same_bytes():
    assert hashlib.sha256(queries.encode(queries.build("val"))).hexdigest() == DIGESTS["val"]


def test_the_corpus_is_the_pinned_one():
    counts = {prefix: len(read_set(prefix).icons) for prefixes in SPLITS.values() for prefix in prefixes}
    assert sum(counts.values()) == 49_573
    assert (counts["tabler"], counts["fluent"], counts["mdi"]) == (5_534, 5_562, 5_727)
    first, last = read_set("tabler").icons[0], read_set("proicons").icons[-1]
    assert (first.name, last.name) == ("a-b", "zoom-out")
    assert {about["licence"] for about in licences().values()} == {"MIT", "Apache-2.0", "ISC"}


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
    assert all(set(query.relevant) <= set(val.gallery) and query.reference in val.images for query in val.queries)
    assert Image.open(val.images[query.reference]).size == (64, 64)


def test_the_targets_of_test_are_closed():
    part = load_benchmark("icons/test", limit=3)
    assert len(part.queries) == 3
    assert not any(query.relevant for query in part.queries)
    with pytest.raises(UsageError, match="hidden"):
        evaluate((part,), [Ranking(tuple(query.id for query in part.queries), ((),) * 3, ((),) * 3, ((),) * 3)])


def test_pictures_are_painted_once(monkeypatch):
    part = load_benchmark("icons/val", limit=1)
    monkeypatch.setattr(room, "_paint_all", lambda *_: pytest.fail("painted again"))
    assert load_benchmark("icons/val", limit=1).images == part.images


def test_a_painting_that_fails_leaves_nothing(monkeypatch, tmp_path):
    def fail(split, wanted, folder):
        (folder / "half").mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(room, "_paint_all", fail)
    with pytest.raises(OSError, match="disk full"):
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


def test_training_has_no_near_duplicate_of_what_is_held_out():
    held = np.concatenate([read_set(prefix).drawings for split in ("val", "test") for prefix in SPLITS[split]])
    sample = read_set("lucide").drawings[::3]
    assert duplicates.nearest(sample, held)[0].max() < duplicates.THRESHOLD + 0.01  # drawings were rounded to 16 levels


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


def test_wordings_of_test_are_in_no_training_caption():
    captions = " | ".join(IconPairs().captions(20_000, Random(0)))
    fixed = {form.split("{")[0].strip() for forms in wordings.TEST.values() for form in forms} - {"", "the"}
    for form in fixed:
        assert f" {form} a" not in captions, form
    assert not [name for name in wordings.SYNONYMS.values() if f"a {name} badge" in captions]


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


def test_plain_captions_are_without_made_up_words():
    known = set(" ".join(IconPairs().captions(20_000, Random(0))).replace(",", "").split())
    shares = {}
    for name in ("icons/train", "icons/plain"):
        captions = load_pairs(name).batch(200, Random("0/1")).captions
        shares[name] = sum(bool(set(text.replace(",", "").split()) - known) for text in captions) / 200
    assert 0.3 < shares["icons/train"] < 0.7
    assert shares["icons/plain"] < 0.1  # of objects that 20,000 captions did not name


def test_gallery_has_the_target_in_other_inks():
    names = set(json.loads(content_of("val"))["gallery"])
    stems = [name.rpartition(".")[0].rpartition(".")[0] for name in names]
    assert len(names) - len(set(stems)) == 14_806 - 11_096  # icons that are there in more inks than one
    assert picture_name(LOCK, "red") == "x/folder-lock.red.png"


def test_an_opening_of_test_is_logged(tmp_path):
    for why in ("to see", "once more"):
        open_test.log(tmp_path / "results.md", why)
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[:3] == ["# Results", "", "## Openings of icons/test"]
    assert [line.rpartition(": ")[2] for line in lines[3:]] == ["to see", "once more"]
