"""The shipped icons as an index, here of four of them: their names are their metadata."""

from types import SimpleNamespace

from PIL import Image

from cig.pipelines import _icons_index
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute

ICONS = ("fluent/bell-24.red.png", "fluent/bell-24.blue.png", "tabler/bell.red.png", "tabler/house.blue.png")


def test_icons_are_found_by_set_drawing_and_ink(tmp_path, monkeypatch):
    folder = tmp_path / "icons/val-1"
    for name in ICONS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), name.split(".")[1]).save(folder / name)
    part = SimpleNamespace(gallery=ICONS, images={name: folder / name for name in ICONS})
    monkeypatch.setattr(_icons_index, "Data", lambda *_, **__: SimpleNamespace(load=lambda _: (part,)))
    searching, compute = OwnSearching(feature_cache=tmp_path / "cache"), Compute(device="cpu")
    index = _icons_index.open_icons(searching, compute)
    assert (index.method.name, index.columns()) == ("pic2word/icons", ["drawing", "ink", "name", "set"])
    hits = index.search(text="a bell", where=["ink=red"], k=9)
    assert {(hit.name, hit.metadata["set"], hit.metadata["drawing"]) for hit in hits} == {
        ("fluent/bell-24.red.png", "fluent", "bell-24"),
        ("tabler/bell.red.png", "tabler", "bell"),
    }
    assert (folder.parent / "val-1.csv").read_text().splitlines()[1] == "fluent/bell-24.red.png,fluent,bell-24,red"
    again = _icons_index.open_icons(searching, compute)
    assert (again.changes.unchanged, again.changes.changed) == (4, 0)
    chosen = _icons_index.open_icons(OwnSearching(method="sum/icons", feature_cache=tmp_path / "cache"), compute)
    assert (chosen.method.name, len(chosen)) == ("sum/icons", 4)
