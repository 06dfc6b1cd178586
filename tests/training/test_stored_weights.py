"""A UNet's weights read one by one, whole files or shards, and what training it will take, said beforehand."""

import pytest
import torch
from safetensors.torch import load_file

from cig.training.objectives._lora import Lora, add_adapter, save_merged
from cig.training.objectives._unet import SIZES, build, load_unet, stored_weights
from cig.training.objectives.generator import GeneratorRecipe, StartModels, _count_weights
from cig.training.plan import Plan, describe_memory


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    home = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    unet = build(SIZES["tiny"], latents=4, prompt=12, pooled=6)
    unet.save_pretrained(home / "whole" / "unet")
    unet.save_pretrained(home / "shards" / "unet", max_shard_size="200KB")
    return home


@pytest.mark.parametrize("form", ["whole", "shards"])
def test_each_weight_is_read_alone(base, form):
    if form == "shards":
        assert len(list((base / form / "unet").glob("*-of-*.safetensors"))) > 1
    whole = load_unet(str(base / "whole")).state_dict()
    weight_of = stored_weights(str(base / form), whole)
    assert all(torch.equal(weight_of(name), weight) for name, weight in whole.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_weight_is_the_base_and_the_adapters_product(base, tmp_path, dtype):
    unet = add_adapter(load_unet(str(base / "whole"), dtype), Lora(rank=2, alpha=4))
    name, layer = next((name, layer) for name, layer in unet.named_modules() if name.endswith("attn1.to_q"))
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(0.5)
    save_merged(unet, tmp_path / "merged.safetensors", lambda names: stored_weights(str(base / "whole"), names))
    merged, whole = load_file(tmp_path / "merged.safetensors"), load_unet(str(base / "whole")).state_dict()
    product = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert torch.equal(merged[f"{name}.weight"], (whole[f"{name}.weight"] + product).half())
    assert torch.equal(merged["conv_in.weight"], whole["conv_in.weight"].half())
    assert merged.keys() == whole.keys()


def test_what_training_takes_is_counted_without_weights(base):
    start, lora = StartModels("vae", SIZES["tiny"], str(base / "whole")), Lora(rank=2, alpha=2)
    unet = load_unet(str(base / "whole"))
    count = sum(weight.numel() for weight in unet.parameters())
    assert _count_weights(start, GeneratorRecipe()) == (count, count)
    adapter = sum(w.numel() for w in add_adapter(unet, lora).parameters() if w.requires_grad)
    assert _count_weights(start, GeneratorRecipe(lora=lora)) == (count + adapter, adapter)


def test_what_training_sdxl_takes():
    """A billion trained weights: 4 + 4 + 8 bytes each and 4 for the mean; the checkpoint has no gradients."""
    assert "20.0 GB of memory" in describe_memory((10**9, 10**9), Plan(1, ema=0.999))
    assert "16.0 GB of disk" in describe_memory((10**9, 10**9), Plan(1, ema=0.999))
    lora = describe_memory((2 * 10**9, 0), Plan(1, autocast="bfloat16"))
    assert "4.0 GB of memory" in lora
