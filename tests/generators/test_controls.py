"""Controls: what each shows in the place of a pseudo-target, made once, and refused where it cannot be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cig import load_benchmark
from cig.errors import NotFiniteError, UsageError
from cig.generators._controls import ControlOptions, pictures
from cig.types import Benchmark, Query


def toy(*queries, hidden=False):
    names = {query.reference for query in queries} | {name for query in queries for name in query.relevant}
    return Benchmark(
        "toy/val",
        queries,
        {name: Path(name) for name in names},
        tuple(names),
        ("recall@1",),
        False,
        0.5,
        "",
        hidden=hidden,
    )


def test_reference_and_oracle(tmp_path):
    part = toy(Query("1", "r", ("c",), {"also": 1, "t": 2}))
    assert pictures("reference-image", part, {}, options=ControlOptions(tmp_path)) == {"1": (Path("r"),)}
    assert pictures("oracle", part, {}, options=ControlOptions(tmp_path)) == {"1": (Path("t"),)}
    with pytest.raises(UsageError, match="no oracle"):
        pictures("oracle", replace(part, hidden=True), {}, options=ControlOptions(tmp_path))


def test_shuffled_keeps_the_kind_of_change():
    """1 asks for red; 2 shares its reference and 4 its target, so 3's is taken, which asks for red, too, not 5's."""
    part = toy(
        Query("1", "r1", ("is red",), {"t1": 2}),
        Query("2", "r1", ("is red",), {"t2": 2}),
        Query("3", "r3", ("is more red",), {"t3": 2}),
        Query("4", "r4", ("is red",), {"t1": 2}),
        Query("5", "r5", ("has two dogs",), {"t5": 2}),
    )
    targets = {query.id: (Path(f"{query.id}.png"),) for query in part.queries}
    found = pictures("shuffled", part, targets, options=ControlOptions(Path()))
    assert found["1"] == (Path("3.png"),)
    assert all(found[query] != targets[query] for query in targets)
    assert found == pictures("shuffled", part, targets, options=ControlOptions(Path()))
    with pytest.raises(UsageError, match="--generated-image-dir"):
        pictures("shuffled", part, {}, options=ControlOptions(Path()))


def test_shuffled_goes_by_tags_before_words():
    part = toy(
        Query("1", "r1", ("is red",), {"t1": 2}, tags=("colour",)),
        Query("2", "r2", ("is red",), {"t2": 2}, tags=("number",)),
        Query("3", "r3", ("turns blue",), {"t3": 2}, tags=("colour",)),
    )
    targets = {query.id: (Path(query.id),) for query in part.queries}
    assert pictures("shuffled", part, targets, options=ControlOptions(Path()))["1"] == (Path("3"),)


def test_augmented_references_are_made_once(world, tmp_path):
    part = load_benchmark("cirr/val", world)
    found = pictures("reference-augmented", part, {}, options=ControlOptions(tmp_path, copies=3))
    assert {len(own) for own in found.values()} == {3}
    own = found[part.queries[0].id]
    original = Image.open(part.images[part.queries[0].reference])
    sizes = {Image.open(path).size for path in own}
    assert all(width <= original.width and height <= original.height for width, height in sizes)
    assert len({path.read_bytes() for path in own}) == 3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert pictures("reference-augmented", part, {}, options=ControlOptions(tmp_path, copies=3)) == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    other = pictures("reference-augmented", part, {}, options=ControlOptions(tmp_path, copies=3, seed=1))
    assert other[part.queries[0].id][0].read_bytes() != own[0].read_bytes()


def test_the_vae_control_is_the_vaes_round_trip(world, tmp_path):
    """Against encode and decode called by hand, on a picture that is as large as the VAE sees."""
    import torch
    from diffusers import AutoencoderKL

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(tmp_path / "r.png")
    part = replace(toy(Query("1", "r", ("c",))), images={"r": tmp_path / "r.png"})
    vae = world / "models/sdxl/vae"
    options = ControlOptions(tmp_path / "made", vae=str(vae), side=64, device="cpu")
    (path,) = pictures("reference-vae", part, {}, options=options)["1"]
    model = AutoencoderKL.from_pretrained(vae)
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "r.png"))).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        truth = model.decode(model.encode(pixels).latent_dist.mode()).sample[0].permute(1, 2, 0)
    expected = ((truth / 2 + 0.5).clamp(0, 1) * 255).round().numpy()
    assert np.abs(np.array(Image.open(path), dtype=float) - expected).max() <= 1


def test_a_vae_that_makes_no_numbers_makes_no_pictures(world, tmp_path):
    import torch
    from diffusers import AutoencoderKL

    Image.new("RGB", (16, 16)).save(tmp_path / "r.png")
    part = replace(toy(Query("1", "r", ("c",))), images={"r": tmp_path / "r.png"})
    vae = AutoencoderKL.from_pretrained(world / "models/sdxl/vae")
    torch.nn.init.constant_(vae.decoder.conv_out.bias, torch.inf)
    vae.save_pretrained(tmp_path / "vae")
    options = ControlOptions(tmp_path / "made", vae=str(tmp_path / "vae"), side=16, device="cpu")
    with pytest.raises(NotFiniteError, match=r"r\.png"):
        pictures("reference-vae", part, {}, options=options)
    assert not [*tmp_path.rglob("made/*/*.png")]


def test_vaes_that_are_not_fetched_yet_are_not_one(tmp_path, monkeypatch):
    """Nothing is known of either but its name; the picture of one is not taken for the other's."""
    Image.new("L", (4, 4)).save(tmp_path / "r.png")
    part = replace(toy(Query("1", "r", ("c",))), images={"r": tmp_path / "r.png"})
    shades = {"someone/light": 250, "someone/dark": 5}

    def load(vae, device, side, *, cache_dir):
        return lambda image: Image.new("L", (4, 4), shades[vae])

    monkeypatch.setattr("cig.generators._round_trip.load_round_trip", load)
    for vae, shade in shades.items():
        (path,) = pictures("reference-vae", part, {}, options=ControlOptions(tmp_path / "made", vae=vae))["1"]
        assert Image.open(path).getpixel((0, 0)) == shade


def test_unreadable_references_are_left_out(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no")
    part = replace(toy(Query("1", "bad", ("c",))), images={"bad": tmp_path / "bad.png"})
    assert pictures("reference-augmented", part, {}, options=ControlOptions(tmp_path / "made")) == {}
