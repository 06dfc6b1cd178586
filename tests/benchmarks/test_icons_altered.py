"""Altered views of icons: each alteration on drawings one can check by eye, and the caption that asks for it back."""

from collections import Counter
from dataclasses import replace
from itertools import permutations
from random import Random

import numpy as np
import pytest
import torch

from cig.benchmarks._icons.altered import IN_TURN, Alteration, change_clauses, kinds_for
from cig.benchmarks._icons.captions import SIDE_WORDS, points
from cig.benchmarks._icons.corpus import Icon, read_split
from cig.benchmarks._icons.derived import (
    SLASH,
    badged_as,
    badges_for,
    derive_icons,
    is_mentioned,
    ringed_as,
    rings_for,
)
from cig.benchmarks._icons.glyphs import SIGNS, sign
from cig.benchmarks._icons.pairs import plain, viewed
from cig.benchmarks._icons.rules import (
    BADGE,
    CORNER,
    GAP,
    RINGS,
    TURNS,
    badge_of,
    badged,
    corner_of,
    fitted,
    hollow,
    magnified,
    reringed,
    ringed,
    slashed,
    solid,
    turned,
    turns_of,
    unslashed,
    wiped,
)
from cig.training.data import load_scenes

INK = 255


def drawing(*boxes):
    """Paper, with boxes (top, bottom, left, right) of ink."""
    paper = torch.zeros(64, 64, dtype=torch.uint8)
    for top, bottom, left, right in boxes:
        paper[top:bottom, left:right] = INK
    return paper


FULL = drawing((10, 50, 10, 50))
FRAME = FULL.clone()
FRAME[14:46, 14:46] = 0


def test_an_outline_is_filled_and_a_filling_outlined():
    assert torch.equal(solid(FRAME), FULL)
    assert torch.equal(hollow(FULL), FRAME)
    assert torch.equal(solid(FULL), FULL)
    assert torch.equal(hollow(FRAME), FRAME), "strokes are no thicker than an outline's"


def test_what_the_border_reaches_is_outside_however_it_winds():
    spiral = drawing((10, 14, 10, 50), (10, 50, 46, 50), (46, 50, 20, 50), (24, 50, 20, 24), (24, 28, 20, 36))
    assert torch.equal(solid(spiral), spiral)
    closed = drawing((10, 14, 0, 50), (10, 64, 46, 50))
    assert torch.equal(solid(closed), closed), "the border does not enclose"
    room = drawing((2, 62, 2, 4), (2, 62, 60, 62), (60, 62, 2, 62), (2, 4, 10, 62))
    walls = [(2, 52, left, left + 2) if left % 16 == 10 else (12, 62, left, left + 2) for left in range(10, 60, 8)]
    winding = torch.maximum(room, drawing(*walls))
    assert torch.equal(solid(winding), winding), "seven corridors of 50 pixels"


def test_a_corner_is_wiped():
    bare = wiped(FULL)
    assert (bare[-CORNER:, -CORNER:] == 0).all()
    bare[-CORNER:, -CORNER:] = FULL[-CORNER:, -CORNER:]
    assert torch.equal(bare, FULL), "and nothing else is"


def test_a_badge_lies_at_the_bottom_right_with_paper_around_it():
    bar = torch.full((4, 40), INK, dtype=torch.uint8)
    page = torch.full((64, 64), INK, dtype=torch.uint8)
    worn = badged(page, badge_of(bar))
    height = 3  # 26 wide
    top = 64 - BADGE + (BADGE - height) // 2
    assert (worn[top : top + height, 64 - BADGE :] == INK).all()
    assert (worn[top - GAP : top, 64 - BADGE :] == 0).all(), "paper above"
    assert (worn[top, 64 - BADGE - GAP : 64 - BADGE] == 0).all(), "and on the left"
    assert (worn[:, : 64 - BADGE - GAP] == INK).all(), "all else is as it was"
    assert (worn[: top - GAP] == INK).all()


def test_paper_around_a_badge_may_be_wider():
    page = torch.full((64, 64), INK, dtype=torch.uint8)
    bar = torch.full((4, 40), INK, dtype=torch.uint8)
    worn = badged(page, badge_of(bar, gap=9))
    middle = 64 - BADGE // 2
    assert (worn[middle, 64 - BADGE :] == INK).all()
    assert (worn[middle, 64 - BADGE - 9 : 64 - BADGE] == 0).all()
    assert worn[middle, 64 - BADGE - 10] == INK


def test_the_corner_of_another_drawing_is_put_on_with_what_lies_in_it():
    donor = drawing((0, 20, 0, 20), (40, 60, 44, 60))
    worn = badged(torch.full((64, 64), INK, dtype=torch.uint8), corner_of(donor, 5))
    assert (worn[40:60, 44:60] == INK).all()
    assert (worn[35:40, 39:64] == 0).all(), "paper above"
    assert (worn[40:60, 39:44] == 0).all(), "and on the left"
    assert (worn[:35] == INK).all(), "what lies outside of the corner is not put on, nor paper around it"
    assert (worn[:, :39] == INK).all()


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (1, 64), (50, 3)])
def test_what_is_fitted_is_in_the_middle_and_whole(shape):
    small = fitted(torch.full(shape, INK, dtype=torch.uint8), 16)
    assert small.shape == (16, 16)
    assert int((small == INK).sum()) == max(1, round(shape[0] * 16 / max(shape))) * max(
        1, round(shape[1] * 16 / max(shape))
    )


def test_a_slash_lies_from_top_left_to_bottom_right_with_paper_along_it():
    crossed = slashed(torch.full((64, 64), INK, dtype=torch.uint8))
    assert crossed[32].tolist().count(0) == 2 * 9, "a diagonal pixel is 0.7 away from the next"
    assert crossed[32, 32] == crossed[32, 0] == INK
    assert crossed[32, 27] == crossed[32, 37] == 0
    assert (unslashed(slashed(drawing())) == 0).all()


@pytest.mark.parametrize("name", RINGS)
def test_rings_surround_what_is_smaller_now_and_magnifying_loses_them(name):
    framed = ringed(FULL, name)
    assert framed[32, 32] == INK
    line = framed[32, :16].tolist(), framed[:16, 32].tolist()
    if name.startswith("dashed"):
        whole = ringed(drawing(), name.removeprefix("dashed "))
        dashed = ringed(drawing(), name)
        assert 0.5 < dashed.count_nonzero() / whole.count_nonzero() < 0.8
        assert (dashed <= whole).all()
    else:
        assert all(row.count(INK) in (3, 4) for row in line), "a line of 4 pixels above and on the left"
    assert framed[32, 10] == framed[10, 32] == 0
    assert (framed[4, 4] == INK) == name.endswith("square")
    if "diamond" not in name:
        assert (magnified(framed)[16:48, 0] == 0).all(), "of the ring at most the corners are left"
    assert magnified(framed)[32, 32] == INK


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(("before", "after"), permutations(RINGS, 2))
def test_what_is_in_another_ring_keeps_its_middle(before, after, filled):
    dot = drawing((12, 52, 24, 40))
    assert torch.equal(reringed(ringed(dot, before, filled), before, after, filled=filled), ringed(dot, after, filled))


def test_what_is_filled_is_cut_out_of_a_ring():
    disc, box = ringed(FULL, "circle", filled=True), ringed(drawing(), "square", filled=True)
    assert disc[32, 32] == 0, "the picture is paper"
    assert disc[32, 8] == INK
    assert (box[3:61, 3:61] == INK).all()
    assert box.count_nonzero() == 60 * 60


@pytest.mark.parametrize(
    ("direction", "others"),
    [("left", {"right", "up", "down"}), ("up", {"down", "left", "right"}), ("up left", {"up right", "down left"})],
)
def test_what_is_turned_points_elsewhere(direction, others):
    """By where a dot lies that lay at the side it is named after."""
    rows, columns = {"up": slice(4, 8), "down": slice(56, 60)}, {"left": slice(4, 8), "right": slice(56, 60)}

    def dotted(name):
        paper, middle = drawing(), slice(30, 34)
        words = name.split()
        paper[
            next((rows[word] for word in words if word in rows), middle),
            next((columns[word] for word in words if word in columns), middle),
        ] = INK
        return paper

    drawn = [TURNS[turn](dotted(direction)) for turn in turns_of(direction)]
    assert {turned(direction, turn) for turn in turns_of(direction)} == others
    for turn, shown in zip(turns_of(direction), drawn, strict=True):
        assert torch.equal(shown, dotted(turned(direction, turn))), "as it is then called"


LOCK = Icon("x", "folder-lock", "folder", "lock")


def test_what_was_put_on_is_asked_off_and_what_was_wiped_asked_back():
    def said(change, icon):
        return {clause for i in range(30) for clause in change_clauses(change, icon, Random(i))}

    assert said(Alteration("no badge", "plus"), Icon("x", "a", "folder")) == {"has no plus badge", "without the plus"}
    assert said(Alteration("badge", "plus"), LOCK) == {"has a lock badge", "with a lock badge", "with a lock"}
    denied = {"outlined, not filled", "is not filled, is outlined"}
    assert said(Alteration("style"), LOCK) == {"is outlined", "outlined", *denied}
    assert said(Alteration("points"), Icon("x", "a", "arrow", direction="up left")) == {
        "points up left",
        "pointing up left",
    }
    assert said(Alteration("no enclosure", "circle"), LOCK) == {"is not in the circle", "without the circle"}


def test_of_another_object_all_is_said():
    """Nothing is known of the drawing that the view shows: whatever it has, it may lack."""
    boxed = replace(LOCK, enclosure="circle", direction="left", style="filled")
    clauses = change_clauses(Alteration("object"), boxed, Random(0))
    assert len(clauses) == 5
    for word in ("folder", "lock", "filled", "left", "circle"):
        assert any(word in clause for clause in clauses), word
    assert len(change_clauses(Alteration("object"), Icon("x", "a", "folder", style=""), Random(0))) == 1


@pytest.fixture(scope="module")
def scenes():
    return load_scenes("icons/altered", 3_000)


@pytest.mark.slow
def test_a_badge_is_exchanged_wiped_or_crossed_out(scenes):
    crossed, bare = Icon("x", "folder-off", "folder", SLASH), Icon("x", "a", "folder")
    put = Alteration("badge", "plus")
    plus = badged_as(FULL, "plus")
    assert not torch.equal(plus, FULL)
    assert torch.equal(scenes._apply(put, LOCK, FULL), badged_as(wiped(FULL), "plus"))
    assert torch.equal(scenes._apply(Alteration("badge"), LOCK, FULL), wiped(FULL))
    assert torch.equal(scenes._apply(Alteration("badge"), crossed, FULL), unslashed(FULL))
    assert torch.equal(scenes._apply(Alteration("no badge", SLASH), bare, FULL), slashed(FULL))
    assert torch.equal(scenes._apply(replace(put, kind="no badge"), bare, FULL), plus)
    apart = badged_as(FULL, "plus", gap=9)
    assert torch.equal(scenes._apply(replace(put, kind="no badge", gap=9), bare, FULL), apart)
    assert apart.count_nonzero() < plus.count_nonzero()
    lent = badged(FULL, corner_of(scenes.drawings[5], 4))
    assert torch.equal(scenes._apply(Alteration("no badge", "plus", other=5, gap=4), bare, FULL), lent)
    assert torch.equal(scenes._apply(Alteration("object", other=5), LOCK, FULL), scenes.drawings[5])


def test_style_direction_and_enclosure_are_undone(scenes):
    flat = drawing((4, 8, 30, 34))
    filled = Icon("x", "a", "folder", style="filled")
    boxed = Icon("x", "a", "folder", enclosure="square")
    assert torch.equal(scenes._apply(Alteration("style"), filled, FULL), FRAME)
    assert torch.equal(scenes._apply(Alteration("style"), LOCK, FRAME), FULL)
    for turn, changed in enumerate(TURNS):
        assert torch.equal(scenes._apply(Alteration("points", turn=turn), LOCK, flat), changed(flat))
        assert torch.equal(scenes._apply(Alteration("side", turn=turn), LOCK, flat), changed(flat))
    assert torch.equal(scenes._apply(Alteration("enclosure"), boxed, flat), magnified(flat))
    assert torch.equal(
        scenes._apply(Alteration("enclosure", "circle"), boxed, flat), reringed(flat, "square", "circle")
    )
    for name in RINGS:
        assert torch.equal(scenes._apply(Alteration("no enclosure", name), LOCK, flat), ringed(flat, name))
        assert torch.equal(scenes._apply(Alteration("no enclosure", name), filled, flat), ringed(flat, name, True))


@pytest.mark.slow
def test_what_was_made_is_what_its_name_says():
    icons, drawings = read_split("train")
    drawings = torch.from_numpy(drawings)
    derived = [*derive_icons(icons, drawings)]
    assert [one.icon for one in derived] == [one.icon for one in derive_icons(icons, drawings)], "always the same"
    kinds = Counter()
    for one in derived:
        before = icons[one.origin]
        changed = [key for key in ("badge", "enclosure", "direction") if getattr(before, key) != getattr(one.icon, key)]
        assert len(changed) == 1
        kinds[changed[0]] += 1
        if changed == ["enclosure"]:
            assert not before.enclosure
            assert torch.equal(one.drawing, ringed_as(before, drawings[one.origin], one.icon.enclosure))
            assert one.icon.enclosure in rings_for(before)
        if changed == ["badge"]:
            assert not before.badge
            assert not is_mentioned(one.icon.badge, before)
            assert one.icon.badge in badges_for(before)
            assert torch.equal(one.drawing, badged_as(drawings[one.origin], one.icon.badge))
        if changed == ["direction"]:
            assert one.icon.direction in {turned(before.direction, turn) for turn in turns_of(before.direction)}
            assert points(one.icon) == points(before)
            assert set(one.icon.direction.split()) <= set(SIDE_WORDS)
    turns = sum(len(turns_of(icon.direction)) for icon in icons if icon.direction)
    assert kinds == {"badge": 23_000, "enclosure": 6_000, "direction": turns}
    assert len(derived) == 32_516, "as docs/icons.md says"
    assert len({(one.icon.prefix, one.icon.name) for one in derived}) == len(derived)


def test_every_badge_has_a_sign_of_its_own():
    icons, _ = read_split("train")
    assert set(SIGNS) == {icon.badge for icon in icons} - {"", SLASH}
    signs = {name: sign(name, 26).float() / INK for name in SIGNS}
    for name, pixels in signs.items():
        apart = {other: float((pixels - others).abs().sum()) for other, others in signs.items() if other != name}
        assert min(apart.values()) > 0.1 * min(float(pixels.sum()), 26 * 26 / 4), (name, min(apart, key=apart.get))


def test_signs_are_drawn_as_one_can_check_by_eye():
    plus, minus, up = sign("plus"), sign("minus"), sign("up arrow")
    assert torch.equal(plus, plus.T)
    assert plus[32].tolist().count(INK) == plus[:, 32].tolist().count(INK) > 55
    assert plus[8, 8] == plus[56, 8] == minus[8, 32] == 0
    assert torch.equal(minus[24:40, 40:], plus[24:40, 40:]), "a plus without its upright"
    assert (sign("right arrow").float() - up.rot90(-1).float()).abs().mean() < 2
    assert sign("gear")[32, 32] == sign("clock")[0, 0] == 0


def test_only_what_an_icon_has_is_altered():
    assert {kind for kind, _ in kinds_for(LOCK)} == {"object", "ink", "style", "badge", "no enclosure"}
    ringed = Icon("x", "a", "sidebar", enclosure="circle", direction="left", style="thin")
    assert {kind for kind, _ in kinds_for(ringed)} == {"object", "ink", "side", "no badge", "enclosure"}
    dashed = Icon("x", "a", "square", enclosure="octagon")
    assert {kind for kind, _ in kinds_for(dashed)} == {"object", "ink", "style", "no badge"}, "it is ringed already"
    assert dict(kinds_for(LOCK, derived=True))["badge"] > 5 * dict(kinds_for(LOCK))["badge"], "a designer's seldom"
    both = Icon("x", "a", "circle square hexagon diamond")
    assert "no enclosure" not in dict(kinds_for(both))


@pytest.mark.slow
def test_scenes_alter_each_picture_in_ways_of_its_own_and_always_the_same(scenes):
    indices = list(range(1000))
    assert scenes.identity["data"] == "icons/altered"
    assert len(load_scenes("icons/altered")) > len(load_scenes("icons/train")) + 2 * 29_000
    for view in range(scenes.views):
        kinds = Counter(change.kind for index in indices for change in scenes._alterations(index, view))
        assert set(kinds) >= {"object", "style", "badge", "no badge", "enclosure", "no enclosure", "points"}
        assert scenes.said(indices, view, Random(0)) == scenes.said(indices, view, Random(0))
        shown = torch.stack([altered(scenes, index, view) for index in indices[:40]])
        inks = [scenes._ink(index, view) for index in indices[:40]]
        assert torch.equal(scenes.seen(indices[:40], view, 32, rng=Random(0)), viewed(shown, inks, 32, rng=Random(0)))
        assert torch.equal(scenes.references(indices[:40], view, Random(0)), plain(shown, inks))
    first, second = ([scenes._alterations(index, view) for index in indices] for view in (0, 1))
    assert sum(one != other for one, other in zip(first, second, strict=True)) > 500
    assert 100 < sum(len(changes) == 2 for changes in first) < 200, "a fifth of those that may be"
    for changes in first:
        assert [one.kind for one in changes] == sorted((one.kind for one in changes), key=IN_TURN.index)


def altered(scenes, index, view):
    """By what was made on it taken off, if that is asked for, and each alteration after the one before."""
    icon, drawing = scenes._icon(index), scenes.drawings[scenes.row(index)]
    drawn = scenes._alterations(index, view)
    for kind in ("badge", "enclosure"):
        if (
            icon in scenes.before
            and kind in [change.kind for change in drawn]
            and "+" + getattr(icon, kind) in icon.name
        ):
            icon, drawing = replace(icon, **{kind: ""}), scenes.before[icon]
    for change in drawn:
        drawing = scenes._apply(change, icon, drawing)
    return drawing


def test_of_a_badge_or_a_ring_that_was_made_the_view_is_what_was_there_before(scenes):
    """To the pixel: nothing is wiped, nothing magnified."""
    seen = Counter()
    for index in range(len(scenes)):
        icon, before = scenes._icon(index), scenes._before(index)
        kind = "badge" if icon.badge else "enclosure"
        for view in range(scenes.views):
            if before is not None and scenes._alterations(index, view) == [Alteration(kind)]:
                seen[kind] += 1
                assert torch.equal(scenes._altered_one(index, view), before)
    assert min(seen["badge"], seen["enclosure"]) > 30


def test_a_badge_that_is_lent_is_a_designers_of_that_name(scenes):
    lent = Counter()
    for index in range(2000):
        for change in scenes._alterations(index, 0):
            if change.kind in ("badge", "no badge") and change.put_on not in ("", SLASH):
                assert 3 <= change.gap <= 9
                lent[change.other is not None] += 1
                if change.other is not None:
                    donor = scenes.icons[change.other]
                    assert donor.badge == change.put_on
                    assert "+" not in donor.name
    assert 0.5 < lent[True] / lent.total() < 0.7


def test_what_is_turned_keeps_the_badge_that_it_had(scenes):
    turned = [icon for icon in scenes.icons if icon.direction and icon.name.endswith(f"+{icon.direction}")]
    assert sum(bool(icon.badge or icon.enclosure) for icon in turned) == 275, "as docs/icons.md says"
    assert not scenes.before.keys() & set(turned)


def test_a_caption_denies_nothing_that_the_picture_has(scenes):
    """A view is given no badge and no ring that the picture's own name says something of."""
    denied = 0
    for index in range(2000):
        icon = scenes._icon(index)
        for change in scenes._alterations(index, 0):
            if change.kind in ("no badge", "no enclosure", "badge") and change.put_on:
                denied += 1
                assert not set(change.put_on.split()) & set(f"{icon.object} {icon.badge} {icon.enclosure}".split())
    assert denied > 500


def test_a_view_in_another_ink_says_the_pictures(scenes):
    inked = [index for index in range(400) if scenes._ink(index, 2) != scenes._inks(index)[0]]
    assert 90 < len(inked) < 190, "a quarter, and those that nothing else is done to"
    for index, caption in zip(inked, scenes.said(inked, 2, Random(0)), strict=True):
        assert scenes._inks(index)[0] in caption.replace(",", "").split()
    alone = [index for index in inked if not scenes._alterations(index, 2)]
    assert 20 < len(alone) < 90


@pytest.mark.slow
def test_identity_changes_with_the_drawing_code(scenes, monkeypatch):
    assert scenes._views_digest() == scenes.identity["alterations"]
    monkeypatch.setattr("cig.benchmarks._icons.rules.STROKE", 5)
    assert scenes._views_digest() != scenes.identity["alterations"]


def test_where_badges_lie():
    """By where a drawing differs from its plain sibling: what docs/icons.md tells."""
    icons, drawings = read_split("train")
    unbadged = {(icon.prefix, *icon.key): row for row, icon in enumerate(icons) if not icon.badge}
    shares = []
    for row, icon in enumerate(icons):
        sibling = unbadged.get((icon.prefix, *replace(icon, badge="").key))
        if icon.badge not in ("", SLASH) and sibling is not None:
            away = np.abs(drawings[row].astype(int) - drawings[sibling])
            most = max(1, away.sum())
            shares.append([away[-CORNER:, -CORNER:].sum() / most, away[:CORNER, -CORNER:].sum() / most])
    mainly = (np.array(shares) > 0.5).mean(0)
    assert (len(shares), [round(100 * share) for share in mainly]) == (2_282, [31, 5])
