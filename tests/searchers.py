"""Each method in the tiny world, with the weights and files that it needs."""

import json
import pickle
from dataclasses import replace

import numpy as np
import torch

import tiny
from cig import Source, load_method, registry

PARTS = ("CIRR", "FashionIQ", "CIRCO", "shop")


def source(world, phi=True):
    models = world / "models"
    return Source(clip=str(models / "clip-small"), phi=models / "phi-small.pt" if phi else None)


def source_of(world, name):
    """What a method of this name needs in the tiny world; a new one needs a line here only if it needs a file."""
    special = {
        "pic2word": {"phi": world / "models/pic2word-small.pt"},
        "oti": {"phi": oti_folder(world)},
        "caption": {"options": {"captions": str(caption_file(world))}},
        "texts": {"options": {"texts": str(text_file(world))}},
        "basic": {"options": {"context": "2"}},
        "precomputed": {"clip": None, "options": {"features": str(feature_file(world))}},
    }
    wants_phi = bool(next(iter(registry.load("methods", name).VARIANTS.values())).phi)
    return replace(source(world, wants_phi), **special.get(name, {}))


def method_of(world, name):
    return load_method(name, source_of(world, name))


def all_pictures(world):
    return sorted(path for part in PARTS for path in (world / part).rglob("*") if path.suffix in (".jpg", ".png"))


def oti_folder(world):
    """As SEARLE writes it; names are as each dataset's, COCO's without zeros."""
    folder = world / "models/oti"
    if not folder.exists():
        folder.mkdir()
        names = [path.stem.lstrip("0") for path in all_pictures(world)]
        (folder / "image_names.pkl").write_bytes(pickle.dumps(names))
        torch.save(torch.randn(len(names), 32), folder / "ema_oti_pseudo_tokens.pt")
        (folder / "hyperparameters.json").write_text('{"clip_model_name": "ViT-B/32"}')
    return folder


def caption_file(world):
    path = world / "models/captions.json"
    if not path.exists():
        captions = {own.name: f"{tiny.CAPTIONS[i % 4]} number {i}" for i, own in enumerate(all_pictures(world))}
        path.write_text(json.dumps(captions))
    return path


def text_file(world):
    """Of the queries "0" to "7" and CIRR's, one text or two."""
    path = world / "models/texts.json"
    if not path.exists():
        texts = {str(i): [f"shape {i}", "a red square"][: 1 + i % 2] for i in (*range(8), *range(9996, 10004))}
        path.write_text(json.dumps(texts))
    return path


def feature_file(world):
    """With features of the queries "0" to "7", which CIRCO and FashionIQ have, and of CIRR's."""
    path = world / "models/features.npz"
    if not path.exists():
        names = [own.stem for own in all_pictures(world)]
        queries = [str(i) for i in (*range(8), *range(9996, 10004))]
        rows = np.random.default_rng(0).normal(size=(len(names) + len(queries), 40)).astype(np.float32)
        own, asks = rows[: len(names)], rows[len(names) :]
        np.savez(path, names=names, features=own, queries=queries, query_features=asks)
    return path
