"""Retrieval by an independent route: transformers in float64, numpy from there on, the annotations read by hand.

It shares no code with cig; tokens and pixels are those of tests/oracle.py. It is written for reading, not for speed.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch

import oracle

UNUSED = 40000  # a token of no caption here: its row holds the word where only the first $ gets it
WORDS = {"searle": ("phi-small.pt", True), "phi": ("phi-small.pt", True), "lincir": ("phi-small.pt", False)}
WORDS |= {"pic2word": ("pic2word-small.pt", False)}  # method -> its phi, and whether only the first $ gets the word
PADDED = ("searle", "phi", "oti")  # methods that pad long pictures
WEIGHTS = {"CIRR": 0.85, "CIRCO": 0.7, "FashionIQ": 0.9}  # the reference's, as published; ours for CIRCO val


@dataclass(frozen=True)
class Asked:
    """One query of the annotations."""

    id: str
    reference: str
    captions: tuple[str, ...]
    target: str
    correct: tuple[str, ...]  # the target among them
    members: tuple[str, ...] = ()  # CIRR's image set


@dataclass(frozen=True)
class Files:
    """Words, captions and features of pictures, by path, and features of queries, by id."""

    words: dict[Path, np.ndarray] = field(default_factory=dict)
    captions: dict[Path, str] = field(default_factory=dict)
    features: dict[Path, np.ndarray] = field(default_factory=dict)
    asked: dict[str, np.ndarray] = field(default_factory=dict)


# The annotations


def parts(root, family):
    """Yield (category or "", pictures of the gallery by name, queries) of a family's val split."""
    home = root / family
    if family == "CIRR":
        split = oracle.read(home / "cirr/image_splits/split.rc2.val.json")
        rows = oracle.read(home / "cirr/captions/cap.rc2.val.json")
        yield "", {name: home / path for name, path in split.items()}, [_of_cirr(row) for row in rows]
    elif family == "CIRCO":
        coco = home / "COCO2017_unlabeled"
        info = oracle.read(coco / "annotations/image_info_unlabeled2017.json")["images"]
        rows = oracle.read(home / "annotations/val.json")
        pictures = {str(row["id"]): coco / "unlabeled2017" / row["file_name"] for row in info}
        yield "", pictures, [_of_circo(row) for row in rows]
    else:
        for category in ("dress", "shirt", "toptee"):
            names = oracle.read(home / f"image_splits/split.{category}.val.json")
            rows = oracle.read(home / f"captions/cap.{category}.val.json")
            found = {name: next(home.glob(f"images/{name}.*")) for name in names}
            yield category, found, [_of_fashioniq(str(i), row) for i, row in enumerate(rows)]


def _of_cirr(row):
    target, members = row["target_hard"], tuple(row["img_set"]["members"])
    return Asked(str(row["pairid"]), row["reference"], (row["caption"],), target, (target,), members)


def _of_circo(row):
    correct = tuple(map(str, row["gt_img_ids"]))
    reference, target = str(row["reference_img_id"]), str(row["target_img_id"])
    return Asked(str(row["id"]), reference, (row["relative_caption"],), target, correct)


def _of_fashioniq(position, row):
    return Asked(position, row["candidate"], tuple(row["captions"]), row["target"], (row["target"],))


# Features


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@cache
def clip(folder):
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(folder).double().eval()


@cache
def picture(folder, path, padded):
    """[d] as the tower projects it."""
    with torch.no_grad():
        pixels = oracle.stage3_pixels(path, padded).double()
        return clip(folder).get_image_features(pixels).pooler_output[0].numpy()


@cache
def text(folder, words):
    """[d] as the tower projects it."""
    return _text(clip(folder), oracle.tokens(words))


def worded(folder, words, word, first_only):
    """[d] of a text whose $ is the word: the vocabulary's row of a token that stands there is the word meanwhile."""
    ids = oracle.tokens(words)
    if first_only:
        assert UNUSED not in ids
        ids[ids.index(oracle.DOLLAR)] = UNUSED
    table = clip(folder).text_model.embeddings.token_embedding.weight.data
    row = UNUSED if first_only else oracle.DOLLAR
    kept = table[row].clone()
    table[row] = torch.from_numpy(word)
    try:
        return _text(clip(folder), ids)
    finally:
        table[row] = kept


def _text(model, ids):
    """Without what follows the end: the tower is causal, and reads its feature there."""
    ids = ids[: ids.index(oracle.END) + 1]
    with torch.no_grad():
        return model.get_text_features(torch.tensor([ids])).pooler_output[0].numpy()


def word_of(models, method, feature):
    """The pseudo-word [h] of a picture's feature [d]: phi's three layers, by numpy."""
    stored = torch.load(models / WORDS[method][0], weights_only=True)
    weights = {name.removeprefix("module."): own.double().numpy() for name, own in next(iter(stored.values())).items()}
    layers = ("layers.0.0", "layers.1.0", "fc_out") if method == "pic2word" else ("layers.0", "layers.3", "layers.6")
    x = feature
    for layer in layers:
        x = weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"]
        if layer != layers[-1]:
            x = np.maximum(x, 0) if method == "pic2word" else _gelu(x)
    return x


def _gelu(x):
    return x * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy()) / 2


# Queries


def orders(captions):
    if len(captions) == 1:
        return captions
    a, b = (caption.strip(".?, ") for caption in captions)
    return f"{a} and {b}", f"{b} and {a}"


def over_orders(texts, embed):
    return unit(sum(unit(embed(words)) for words in texts))


def composed(models, method, files, *, path, captions):
    """The unit feature [d] of one picture and its captions."""
    folder, texts = models / "clip-small", orders(captions)
    if method in ("image", "text", "sum", "slerp", "bge-vl"):
        seen = picture(folder, path, False)
        if method == "bge-vl":
            return over_orders(texts, lambda words: seen + text(folder, words))
        said = over_orders(texts, lambda words: text(folder, words))
        return {"image": unit(seen), "text": said, "sum": unit(unit(seen) + said)}.get(method, _slerp(unit(seen), said))
    if method == "caption":
        told = [f"a photo of {files.captions[path].strip('.?, ')} that {words}" for words in texts]
        return over_orders(told, lambda words: text(folder, words))
    if method == "precomputed":
        return unit(files.features[path])
    prompts = [f"a photo of $ that {words}" for words in texts]
    if method == "oti":
        return over_orders(prompts, lambda words: worded(folder, words, files.words[path], True))
    word = word_of(models, method, picture(folder, path, method in PADDED))
    return over_orders(prompts, lambda words: worded(folder, words, word, WORDS[method][1]))


def _slerp(seen, said, t=0.8):
    angle = np.arccos(seen @ said)
    return unit((np.sin((1 - t) * angle) * seen + np.sin(t * angle) * said) / np.sin(angle))


def fused(models, method, files, *, query, path, pseudo_target, weight):
    """The unit feature [d] of a query: its reference alone, or beside its pseudo-target."""
    own = composed(models, method, files, path=path, captions=query.captions)
    if method == "precomputed":
        own = unit(files.asked[query.id])
    if pseudo_target is None:
        return own
    other = composed(models, method, files, path=pseudo_target, captions=query.captions)
    return unit(weight * own + (1 - weight) * other)


def ranked(models, method, files, *, gallery, feature, drop):
    """[(name, cosine)] of the gallery, best first; equal ones keep the gallery's order."""

    def row(path):
        return (
            files.features[path] if method == "precomputed" else picture(models / "clip-small", path, method in PADDED)
        )

    scores = unit(np.stack([row(path) for path in gallery.values()])) @ feature
    order = np.argsort(-scores, kind="stable")
    names = list(gallery)
    return [(names[i], float(scores[i])) for i in order if names[i] != drop]


# Measures, in percent


def recall(names, target, k):
    return 100.0 * (target in names[:k])


def average_precision(names, correct, k):
    """CIRCO's: over min(k, number of correct pictures)."""
    hits, total = 0, 0.0
    for rank, name in enumerate(names[:k], 1):
        if name in correct:
            hits += 1
            total += hits / rank
    return 100 * total / min(k, len(correct))


def measured(family, query, names):
    """{measure: percent} of one query's ranking."""
    if family == "FashionIQ":
        return {f"recall@{k}": recall(names, query.target, k) for k in (10, 50)}
    if family == "CIRCO":
        cutoffs = (5, 10, 25, 50)
        precision = {f"map@{k}": average_precision(names, query.correct, k) for k in cutoffs}
        return precision | {f"recall@{k}": recall(names, query.target, k) for k in cutoffs}
    among = [name for name in names if name in query.members]
    values = {f"recall@{k}": recall(names, query.target, k) for k in (1, 5, 10, 50)}
    return values | {f"subset_recall@{k}": recall(among, query.target, k) for k in (1, 2, 3)}
