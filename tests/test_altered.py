"""Altered views of icons: each alteration on drawings one can check by eye, and the caption that asks for it back."""

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from cig.icons.altered import (
    ALTERED,
    CORNER,
    RINGS,
    SLASH,
    TURNS,
    Alteration,
    AlteredScenes,
    apply,
    asking,
    hollow,
    kinds_for,
    magnified,
    pasted,
    slashed,
    solid,
    turns_of,
    unslashed,
    wiped,
)
from cig.icons.corpus import Icon, read_split
from cig.icons.pairs import viewed
from cig.training import load_scenes

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


def test_a_corner_is_wiped_and_pasted_over():
    inside = slice(64 - CORNER, None)
    bare, worn = wiped(FULL), pasted(FULL, torch.full((64, 64), 100, dtype=torch.uint8))
    assert (bare[inside, inside] == 0).all()
    assert (worn[inside, inside] == 100).all()
    for own in (bare, worn):
        own[inside, inside] = FULL[inside, inside]
        assert torch.equal(own, FULL), "and nothing else is"


def test_a_slash_lies_from_top_left_to_bottom_right_with_paper_along_it():
    crossed = slashed(torch.full((64, 64), INK, dtype=torch.uint8))
    assert crossed[32].tolist().count(0) == 2 * 9, "a diagonal pixel is 0.7 away from the next"
    assert crossed[32, 32] == crossed[32, 0] == INK
    assert crossed[32, 27] == crossed[32, 37] == 0
    assert (unslashed(slashed(drawing())) == 0).all()


def test_rings_surround_what_is_smaller_now_and_magnifying_loses_them():
    for name, ring in RINGS.items():
        framed = ring(FULL)
        assert framed[32, 32] == INK, name
        assert framed[32, 4] == framed[4, 32] == INK
        assert framed[32, 10] == 0
        assert (framed[4, 4] == INK) == (name == "square")
        assert (magnified(framed)[16:48, 0] == 0).all(), "of the ring at most the corners are left"
        assert magnified(framed)[32, 32] == INK


@pytest.mark.parametrize(
    ("direction", "turned"),
    [("left", {"right", "up", "down"}), ("up", {"down", "left", "right"}), ("up left", {"up right", "down left"})],
)
def test_what_is_turned_points_elsewhere(direction, turned):
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
    found = {name for own in drawn for name in turned if torch.equal(own, dotted(name))}
    assert found == turned
    assert len(drawn) == len(turned)


LOCK = Icon("x", "folder-lock", "folder", "lock")


def test_what_was_put_on_is_asked_off_and_what_was_wiped_asked_back():
    def said(own, icon):
        return {asking(own, icon, Random(i)) for i in range(30)}

    assert said(Alteration("no badge", "plus"), Icon("x", "a", "folder")) == {"has no plus badge", "without the plus"}
    assert said(Alteration("badge", "plus"), LOCK) == {"has a lock badge", "with a lock badge", "with a lock"}
    assert said(Alteration("style"), LOCK) == {"is outlined", "outlined"}
    assert said(Alteration("points"), Icon("x", "a", "arrow", direction="up left")) == {
        "points up left",
        "pointing up left",
    }
    assert said(Alteration("no enclosure", "circle"), LOCK) == {"is not in the circle", "without the circle"}
    assert said(Alteration("object"), LOCK) == {"is a folder", "a folder"}


def test_a_badge_is_exchanged_wiped_or_crossed_out():
    other = torch.full((64, 64), 100, dtype=torch.uint8)
    crossed = Icon("x", "folder-off", "folder", SLASH)
    plain = Icon("x", "a", "folder")
    assert torch.equal(apply(Alteration("badge", "plus"), FULL, other, LOCK), pasted(wiped(FULL), other))
    assert torch.equal(apply(Alteration("badge"), FULL, other, LOCK), wiped(FULL))
    assert torch.equal(apply(Alteration("badge"), FULL, other, crossed), unslashed(FULL))
    assert torch.equal(apply(Alteration("no badge", SLASH), FULL, other, plain), slashed(FULL))
    assert torch.equal(apply(Alteration("no badge", "plus"), FULL, other, plain), pasted(FULL, other))
    assert torch.equal(apply(Alteration("object"), FULL, other, LOCK), other)


def test_style_direction_and_enclosure_are_undone():
    flat = drawing((4, 8, 30, 34))
    filled = Icon("x", "a", "folder", style="filled")
    assert torch.equal(apply(Alteration("style"), FULL, FULL, filled), FRAME)
    assert torch.equal(apply(Alteration("style"), FRAME, FULL, LOCK), FULL)
    for turn, changed in enumerate(TURNS):
        assert torch.equal(apply(Alteration("points", turn=turn), flat, FULL, LOCK), changed(flat))
        assert torch.equal(apply(Alteration("side", turn=turn), flat, FULL, LOCK), changed(flat))
    assert torch.equal(apply(Alteration("enclosure"), flat, FULL, LOCK), magnified(flat))
    for name, ring in RINGS.items():
        assert torch.equal(apply(Alteration("no enclosure", name), flat, FULL, LOCK), ring(flat))


def test_only_what_an_icon_has_is_altered():
    assert {kind for kind, _ in kinds_for(LOCK)} == {"object", "style", "badge", "no enclosure"}
    bare = Icon("x", "a", "sidebar", enclosure="circle", direction="left", style="thin")
    assert {kind for kind, _ in kinds_for(bare)} == {"object", "side", "no badge", "enclosure"}


def test_scenes_alter_each_picture_in_ways_of_its_own_and_always_the_same():
    scenes, places = load_scenes("icons/altered", 400), list(range(400))
    plain = load_scenes("icons/train", 400)
    assert scenes.identity["data"] == "icons/altered"
    assert torch.equal(scenes.pictures(places), plain.pictures(places)), "what is drawn is as it was"
    for view in ALTERED:
        kinds = Counter(scenes._alteration(place, view).kind for place in places)
        assert set(kinds) >= {"object", "style", "badge", "no badge", "no enclosure"}
        assert scenes.said(places, view, Random(0)) == scenes.said(places, view, Random(0))
        shown = [apply(scenes._alteration(place, view), *lent(scenes, place, view)) for place in places[:8]]
        inks = [scenes._seen_in(place, view) for place in places[:8]]
        expected = viewed(torch.stack(shown), inks, 32, Random(0))
        assert torch.equal(scenes.seen(places[:8], view, 32, Random(0)), expected)
        assert not torch.equal(plain.seen(places[:8], 0, 32, Random(0)), expected)
    first, second = ([scenes._alteration(place, view) for place in places] for view in ALTERED)
    assert sum(one != other for one, other in zip(first, second, strict=True)) > 200
    assert scenes.said(places, 0, Random(0)) == plain.said(places, 0, Random(0))


def lent(scenes, place, view):
    """A drawing, the one that lends to it, and what it is."""
    row, other = scenes.row(place), scenes._alteration(place, view).other
    return scenes.drawings[row], scenes.drawings[other], scenes.icons[row]


def test_an_altered_view_in_another_ink_says_the_pictures():
    scenes = AlteredScenes(400)
    inked = [place for place in range(400) if scenes._seen_in(place, 2) != scenes._inks(place)[0]]
    assert 60 < len(inked) < 140, "a quarter"
    for place, caption in zip(inked, scenes.said(inked, 2, Random(0)), strict=True):
        assert scenes._inks(place)[0] in caption.replace(",", "").split()


def test_a_third_of_badges_lie_mainly_where_they_are_wiped():
    """By where a drawing differs from its plain sibling: what docs/icons.md tells."""
    icons, drawings = read_split("train")
    plain = {(icon.prefix, *icon.key): row for row, icon in enumerate(icons) if not icon.badge}
    shares = []
    for row, icon in enumerate(icons):
        sibling = plain.get((icon.prefix, *replace(icon, badge="").key))
        if icon.badge not in ("", SLASH) and sibling is not None:
            away = np.abs(drawings[row].astype(int) - drawings[sibling])
            shares.append(away[-CORNER:, -CORNER:].sum() / max(1, away.sum()))
    assert (len(shares), round(100 * np.mean(np.array(shares) > 0.5))) == (2_282, 31)
