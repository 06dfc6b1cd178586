"""Files of weights: the bytes that safetensors itself writes, any layout in memory, a disk that is full."""

import resource
import signal

import pytest
import safetensors.torch
import torch

from cig.errors import OutputError
from cig.io.weight_files import write_pt, write_safetensors, write_weights

WEIGHTS = {
    "b.weight": torch.arange(48.0).reshape(3, 4, 2, 2),
    "a": torch.tensor([1.5, -2.0]),
    "é": torch.tensor(0.25),
    "z": torch.zeros(0, 3),
}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"about": '{"x": "é\\n"}'}])
@pytest.mark.parametrize(("write", "dtype"), [(write_safetensors, torch.float32), (write_weights, torch.float16)])
def test_bytes_are_the_librarys(tmp_path, write, dtype, metadata):
    write(tmp_path / "w.safetensors", WEIGHTS, metadata)
    wanted = safetensors.torch.save({name: weight.to(dtype) for name, weight in WEIGHTS.items()}, metadata=metadata)
    assert (tmp_path / "w.safetensors").read_bytes() == wanted


@pytest.mark.parametrize("write", [write_safetensors, write_weights])
def test_channels_last_are_written_as_they_read(tmp_path, write):
    latents = WEIGHTS["b.weight"].to(memory_format=torch.channels_last)
    assert not latents.is_contiguous()
    write(tmp_path / "w.safetensors", {"latents": latents})
    read = safetensors.torch.load_file(tmp_path / "w.safetensors")["latents"]
    assert torch.equal(read.float(), WEIGHTS["b.weight"])


def test_a_pt_does_not_depend_on_its_name(tmp_path):
    for name in ("a.pt", "longer.pt"):
        write_pt(tmp_path / name, WEIGHTS)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "longer.pt").read_bytes()


@pytest.mark.parametrize("write", [write_pt, write_safetensors, write_weights])
def test_a_full_disk_leaves_the_old_file(tmp_path, write):
    """Stood for by a limit of 20 kB a file."""
    path = tmp_path / "w.file"
    path.write_text("old")
    ignored, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"w\.file cannot be written"):
            write(path, {"a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [file.name for file in tmp_path.iterdir()] == ["w.file"]
    assert path.read_text() == "old"
