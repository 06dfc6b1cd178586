"""The published doors: keys, shapes and order of the CIG release's torch Datasets."""

import pytest
import torch
from torch.utils.data import DataLoader
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from cig import CIRRDataset, ComposedEmbedsDataset, FashionIQDataset
from cig.errors import InputError
from cig.io.tensors import write_embedding
from cig.types import ComposedEmbedding


def test_cirr(world):
    dataset = CIRRDataset(world / "CIRR", split="test1", preprocess=CLIPImageProcessorPil())
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert set(batch) == {"reference_image", "relative_caption", "pairid"}
    assert batch["reference_image"].shape == (4, 3, 224, 224)
    assert [f"{name}" for name in batch["pairid"]] == ["9996", "9997", "9998", "9999"]
    assert len(dataset) == 8


def test_fashioniq(world):
    dataset = FashionIQDataset(world / "FashionIQ", split="val", dress_types=["dress", "toptee"])
    assert len(dataset) == 16
    assert dataset[8]["pairid"] == 0
    assert dataset[0]["relative_caption"].startswith("shows two dogs instead of one and Has a BIGGER logo")
    assert dataset[0]["reference_image"].mode == "RGB"


def test_a_missing_reference_is_named(world):
    dataset = CIRRDataset(world / "CIRR")
    dataset.items[0][0].images.pop(dataset.items[0][1].reference)
    with pytest.raises(InputError, match="no picture for the reference"):
        dataset[0]


def test_composed_embeddings(world, tmp_path):
    shapes = {"conditioning": (77, 32), "conditioning2": (77, 48), "pooled2": (56,), "last": (77, 32)}
    rows = {key: torch.randn(2, *shape) for key, shape in shapes.items()}
    composed = ComposedEmbedding(("9998", "9996"), **rows)
    for row, name in enumerate(composed.ids):
        write_embedding(tmp_path / f"{name}.pt", composed, row)
    dataset = ComposedEmbedsDataset(world / "CIRR", tmp_path, split="test1")
    assert [item["pairid"] for item in (dataset[0], dataset[1])] == ["9996", "9998"]
    assert torch.equal(dataset[1]["prompt_embeds"], composed.prompt[0])
    assert dataset[1]["pooled2"].shape == (56,)
    assert len(dataset.missing) == 6
