"""Drawings that are nearly the same: sets redraw each other's icons, at another size, place or stroke width.

Each drawing is cut to its ink, scaled to 24 x 24, blurred, and made a unit vector of mean 0: a perceptual hash that is
not rounded to bits. Blur and norm make a thin stroke and a bold one alike. Two are near-duplicates where the cosine
passes a threshold that was chosen by looking at pairs of training and validation sets.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

SIDE, BLUR, THRESHOLD = 24, 1.2, 0.94


def near_duplicates(drawings: np.ndarray, held: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """[N] bool: which of the drawings [N, 64, 64] are nearly the same as one of [M, 64, 64]."""
    return nearest(drawings, held)[0] > threshold


def nearest(drawings: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cosine [N] of each drawing with the nearest held one, and which one it is [N]."""
    return nearest_rows(prints(drawings), prints(held))


def nearest_rows(own: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of unit rows [N, d] and [M, d]."""
    scores, places = [], []
    for start in range(0, len(own), 1024):
        cosines = own[start : start + 1024] @ others.T
        places.append(cosines.argmax(axis=1))
        scores.append(cosines.max(axis=1))
    return np.concatenate(scores), np.concatenate(places)


def prints(drawings: np.ndarray) -> np.ndarray:
    """[N, 64, 64] uint8 -> [N, 576] float32 unit rows."""
    rows = np.stack([_print(drawing) for drawing in drawings]).reshape(len(drawings), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return unit


def _print(drawing: np.ndarray) -> np.ndarray:
    image = Image.fromarray(drawing)
    left, top, right, bottom = image.getbbox() or (0, 0, *image.size)
    side = max(right - left, bottom - top)
    square = Image.new("L", (side, side))
    square.paste(image.crop((left, top, right, bottom)), ((side - right + left) // 2, (side - bottom + top) // 2))
    small = square.resize((SIDE, SIDE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(BLUR))
    return np.asarray(small, np.float32)
