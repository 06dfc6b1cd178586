"""Altered views of icons: each alteration on drawings one can check by eye, and the caption that asks for it back."""

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from cig.icons.altered import (
    CORNER,
    CORNERS,
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
from cig.icons.pairs import plain, viewed
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


@pytest.mark.parametrize("corner", CORNERS)
def test_a_corner_is_wiped_and_pasted_over(corner):
    far, near = slice(64 - CORNER, None), slice(CORNER)
    within = far if corner == "bottom right" else near, far
    bare, worn = wiped(FULL, corner), pasted(FULL, torch.full((64, 64), 100, dtype=torch.uint8), corner)
    assert (bare[within] == 0).all()
    assert (worn[within] == 100).all()
    for own in (bare, worn):
        own[within] = FULL[within]
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
        return {clause for i in range(30) for clause in asking(own, icon, Random(i))}

    assert said(Alteration("no badge", "plus"), Icon("x", "a", "folder")) == {"has no plus badge", "without the plus"}
    assert said(Alteration("badge", "plus"), LOCK) == {"has a lock badge", "with a lock badge", "with a lock"}
    assert said(Alteration("style"), LOCK) == {"is outlined", "outlined"}
    assert said(Alteration("points"), Icon("x", "a", "arrow", direction="up left")) == {
        "points up left",
        "pointing up left",
    }
    assert said(Alteration("no enclosure", "circle"), LOCK) == {"is not in the circle", "without the circle"}


def test_of_another_object_all_is_said():
    """Nothing is known of the drawing that the view shows: whatever it has, it may lack."""
    boxed = replace(LOCK, enclosure="circle", direction="left", style="filled")
    told = asking(Alteration("object"), boxed, Random(0))
    assert len(told) == 5
    for word in ("folder", "lock", "filled", "left", "circle"):
        assert any(word in clause for clause in told), word
    assert len(asking(Alteration("object"), Icon("x", "a", "folder", style=""), Random(0))) == 1


def test_a_badge_is_exchanged_wiped_or_crossed_out():
    other, corner = torch.full((64, 64), 100, dtype=torch.uint8), "top right"
    crossed = Icon("x", "folder-off", "folder", SLASH)
    plain = Icon("x", "a", "folder")
    worn = Alteration("badge", "plus", 5, corner)
    assert torch.equal(apply(worn, FULL, other, LOCK), pasted(FULL, other, corner))
    assert torch.equal(apply(Alteration("badge", corner=corner), FULL, None, LOCK), wiped(FULL, corner))
    assert torch.equal(apply(Alteration("badge"), FULL, None, crossed), unslashed(FULL))
    assert torch.equal(apply(Alteration("no badge", SLASH), FULL, None, plain), slashed(FULL))
    assert torch.equal(apply(replace(worn, kind="no badge"), FULL, other, plain), pasted(FULL, other, corner))
    assert torch.equal(apply(Alteration("object"), FULL, other, LOCK), other)


def test_style_direction_and_enclosure_are_undone():
    flat = drawing((4, 8, 30, 34))
    filled = Icon("x", "a", "folder", style="filled")
    assert torch.equal(apply(Alteration("style"), FULL, None, filled), FRAME)
    assert torch.equal(apply(Alteration("style"), FRAME, None, LOCK), FULL)
    for turn, changed in enumerate(TURNS):
        assert torch.equal(apply(Alteration("points", turn=turn), flat, None, LOCK), changed(flat))
        assert torch.equal(apply(Alteration("side", turn=turn), flat, None, LOCK), changed(flat))
    assert torch.equal(apply(Alteration("enclosure"), flat, None, LOCK), magnified(flat))
    assert torch.equal(apply(Alteration("enclosure", "square"), flat, None, LOCK), RINGS["square"](magnified(flat)))
    for name, ring in RINGS.items():
        assert torch.equal(apply(Alteration("no enclosure", name), flat, None, LOCK), ring(flat))


def test_only_what_an_icon_has_is_altered():
    assert {kind for kind, _ in kinds_for(LOCK)} == {"object", "ink", "style", "badge", "no enclosure"}
    ringed = Icon("x", "a", "sidebar", enclosure="circle", direction="left", style="thin")
    assert {kind for kind, _ in kinds_for(ringed)} == {"object", "ink", "side", "no badge", "enclosure"}
    dashed = Icon("x", "a", "square", enclosure="dashed circle")
    assert {kind for kind, _ in kinds_for(dashed)} == {"object", "ink", "style", "no badge"}, "it is ringed already"
    both = Icon("x", "a", "circle square")
    assert "no enclosure" not in dict(kinds_for(both))


def test_scenes_alter_each_picture_in_ways_of_its_own_and_always_the_same():
    scenes, places = load_scenes("icons/altered", 400), list(range(400))
    drawn = load_scenes("icons/train", 400)
    assert scenes.identity["data"] == "icons/altered"
    assert torch.equal(scenes.pictures(places), drawn.pictures(places)), "what is drawn is as it was"
    for view in range(scenes.views):
        kinds = Counter(own.kind for place in places for own in scenes._alterations(place, view))
        assert set(kinds) >= {"object", "style", "badge", "no badge", "no enclosure"}
        assert scenes.said(places, view, Random(0)) == scenes.said(places, view, Random(0))
        shown = torch.stack([altered(scenes, place, view) for place in places[:8]])
        inks = [scenes._ink(place, view) for place in places[:8]]
        assert torch.equal(scenes.seen(places[:8], view, 32, Random(0)), viewed(shown, inks, 32, Random(0)))
        assert torch.equal(scenes.references(places[:8], view, Random(0)), plain(shown, inks))
    first, second = ([scenes._alterations(place, view) for place in places] for view in (0, 1))
    assert sum(one != other for one, other in zip(first, second, strict=True)) > 200
    assert 40 < sum(len(own) == 2 for own in first) < 80, "a fifth of those that may be"


def altered(scenes, place, view):
    row = scenes.row(place)
    drawing = scenes.drawings[row]
    for own in scenes._alterations(place, view):
        other = None if own.other is None else scenes.drawings[own.other]
        drawing = apply(own, drawing, other, scenes.icons[row])
    return drawing


def test_a_caption_denies_nothing_that_the_picture_has():
    """A view is given no badge and no ring that the picture's own name says something of."""
    scenes = AlteredScenes(2000)
    denied = 0
    for place in range(2000):
        icon = scenes._icon(place)
        for own in scenes._alterations(place, 0):
            if own.kind in ("no badge", "no enclosure", "badge") and own.put_on:
                denied += 1
                assert not set(own.put_on.split()) & set(f"{icon.object} {icon.badge} {icon.enclosure}".split())
    assert denied > 500


def test_a_view_in_another_ink_says_the_pictures():
    scenes = AlteredScenes(400)
    inked = [place for place in range(400) if scenes._ink(place, 2) != scenes._inks(place)[0]]
    assert 90 < len(inked) < 180, "a quarter, and those that nothing else is done to"
    for place, caption in zip(inked, scenes.said(inked, 2, Random(0)), strict=True):
        assert scenes._inks(place)[0] in caption.replace(",", "").split()
    alone = [place for place in inked if not scenes._alterations(place, 2)]
    assert 20 < len(alone) < 90


def test_identity_changes_with_the_drawing_code(monkeypatch):
    before = AlteredScenes(64).identity
    monkeypatch.setattr("cig.icons.altered.STROKE", 5)
    assert AlteredScenes(64).identity["alterations"] != before["alterations"]


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
    assert (len(shares), [round(100 * own) for own in mainly]) == (2_282, [31, 5])
