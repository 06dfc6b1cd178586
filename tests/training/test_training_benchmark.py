"""What benchmarks/training.py counts without weights, against what can be counted by hand; where it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cig.training.checkpoint import trainable

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tiny_sdxl(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training_sdxl

    small = {"block_out_channels": (32, 32, 64), "attention_head_dim": (1, 1, 2), "transformer_layers_per_block": 1}
    monkeypatch.setattr(training_sdxl, "SDXL", {**training_sdxl.SDXL, **small})
    return training_sdxl


@pytest.mark.slow
def test_what_is_kept(tiny_sdxl):
    """All weights: weights, gradients and two moments of 4 bytes each, a copy of 2. Frozen ones: 2 bytes."""
    weights = sum(own.numel() for own in tiny_sdxl.unet_of("full", torch.device("meta")).parameters())
    full, lora = (tiny_sdxl.counted(kind, 64, False) for kind in ("full", "lora"))
    assert full["weights, gradients, AdamW GB"] == pytest.approx(18 * weights / 1e9)
    adapter = sum(own.numel() for _, own in trainable(tiny_sdxl.unet_of("lora", torch.device("meta"))))
    assert lora["weights, gradients, AdamW GB"] == pytest.approx((2 * weights + 18 * adapter) / 1e9)
    again = tiny_sdxl.counted("full", 64, True)
    assert 0 < again["activations a picture GB"] < full["activations a picture GB"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_sdxl_itself_wants_a_gpu(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "training.py"), str(tmp_path), "--sdxl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == "--sdxl needs a GPU; --counted says without one what it would take"
