"""A whole world in miniature: CIRR, FashionIQ, CIRCO and a folder of one's own, with drawn pictures, and tiny models.

    python examples/tiny.py build/tiny      # make it, and walk through it, verb by verb

Its layout, file formats and loading code are the real ones; its weights are noise, so its scores are those of chance.
The tests use it, too.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from cig.cli.terminal import messages_on_stderr

CAPTIONS = (
    "shows two dogs instead of one",
    "is red & sleeveless, with a longer skirt",
    "costs $5 more and has a $ on it",
    "Has a BIGGER logo.  ",
    "l'umbrella è più chiara — caf\u00e9",
    "is taken from above",
    "same colour, " * 40,  # over 77 tokens
    "the second bottle &amp; the third are gone!",
)
CATEGORIES = ("dress", "shirt", "toptee")


@dataclass(frozen=True)
class Sizes:
    """Widths of the tiny models, all different so that none can be mistaken for another."""

    text: tuple[int, int] = (32, 48)
    features: tuple[int, int] = (40, 56)


def make(root: Path, seed: int = 0, queries: int = 8, pictures: int = 60, sizes: Sizes | None = None) -> Path:
    """Writes everything under root and returns it; the same seed gives the same world."""
    rng = random.Random(seed)
    make_models(root / "models", seed, sizes or Sizes())
    make_cirr(root / "CIRR", rng, queries, pictures)
    make_fashioniq(root / "FashionIQ", rng, queries, pictures)
    make_circo(root / "CIRCO", rng, queries, pictures)
    make_shop(root / "shop", rng, queries, pictures)
    return root


# Pictures


def draw(rng: random.Random, path: Path) -> None:
    """A few shapes, in one of the sizes and modes that real datasets have."""
    size = rng.choice([(224, 224), (300, 200), (97, 241), (640, 231), (225, 400), (64, 64)])
    image = Image.new("RGB", size, _colour(rng))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = sorted(rng.choices(range(size[0]), k=2)), sorted(rng.choices(range(size[1]), k=2))
        shape = rng.choice([pen.ellipse, pen.rectangle])
        shape((x[0], y[0], x[1] + 5, y[1] + 5), fill=_colour(rng))
    mode = rng.choice(["RGB", "RGB", "P", "RGBA", "L"]) if path.suffix == ".png" else "RGB"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


# Datasets, in the layout of their releases


def make_cirr(home: Path, rng: random.Random, queries: int, pictures: int) -> None:
    for split, folder in (("val", "dev"), ("test1", "test1")):
        names = [f"{folder}-{i}-0-img{i % 2}" for i in range(pictures)]
        for name in names:
            draw(rng, home / folder / f"{name}.png")
        _write(home / f"cirr/image_splits/split.rc2.{split}.json", {name: f"./{folder}/{name}.png" for name in names})
        entries = [_cirr_entry(rng, i, names, hidden=split == "test1") for i in range(queries)]
        _write(home / f"cirr/captions/cap.rc2.{split}.json", entries)


def _cirr_entry(rng: random.Random, i: int, names: Sequence[str], hidden: bool) -> dict[str, Any]:
    members = rng.sample(list(names), 6)
    entry = {"pairid": 9996 + i, "reference": members[0], "caption": _caption(i), "img_set": {"members": members}}
    return entry if hidden else {**entry, "target_hard": members[1], "target_soft": {members[1]: 1.0}}


def make_fashioniq(home: Path, rng: random.Random, queries: int, pictures: int) -> None:
    for category in CATEGORIES:
        names = [f"B00{category[0].upper()}{i:04d}" for i in range(pictures)]
        for name in names:
            draw(rng, home / "images" / f"{name}.jpg")
        _write(home / f"image_splits/split.{category}.val.json", names)
        pairs = [rng.sample(names, 2) for _ in range(queries)]
        entries = [
            {"candidate": reference, "target": target, "captions": [_caption(i), _caption(i + 3)]}
            for i, (reference, target) in enumerate(pairs)
        ]
        _write(home / f"captions/cap.{category}.val.json", entries)


def make_circo(home: Path, rng: random.Random, queries: int, pictures: int) -> None:
    ids = sorted(rng.sample(range(1, 600000), pictures))
    coco = home / "COCO2017_unlabeled"
    for i in ids:
        draw(rng, coco / "unlabeled2017" / f"{i:012d}.jpg")
    info = {"images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids]}
    _write(coco / "annotations/image_info_unlabeled2017.json", info)
    for split in ("val", "test"):
        entries = [_circo_entry(rng, i, ids, hidden=split == "test") for i in range(queries)]
        _write(home / f"annotations/{split}.json", entries)


def _circo_entry(rng: random.Random, i: int, ids: Sequence[int], hidden: bool) -> dict[str, Any]:
    reference, *targets = rng.sample(list(ids), 4)
    entry = {"id": i, "reference_img_id": reference, "relative_caption": _caption(i), "shared_concept": "a thing"}
    truth = {"target_img_id": targets[0], "gt_img_ids": targets, "semantic_aspects": ["addition"]}
    return entry if hidden else entry | truth


def make_shop(home: Path, rng: random.Random, queries: int, pictures: int) -> None:
    """Somebody's own pictures, with queries in the form that `folder` reads."""
    names = [f"{('dresses', 'shirts')[i % 2]}/no {i}.jpg" for i in range(pictures)]
    for name in names:
        draw(rng, home / name)
    pairs = [rng.sample(names, 2) for _ in range(queries)]
    rows = [
        {"reference": reference, "caption": _caption(i), "target": target, "tags": ["change"], "cluster": str(i // 2)}
        for i, (reference, target) in enumerate(pairs)
    ]
    _write(home / "queries.json", rows)


def _caption(i: int) -> str:
    return CAPTIONS[i % len(CAPTIONS)]


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


# Models: real architectures, tiny, with random weights


def make_models(home: Path, seed: int, sizes: Sizes) -> None:
    import torch

    torch.manual_seed(seed)
    make_clip(home / "clip-small", sizes.text[0], sizes.features[0], "quick_gelu")
    make_clip(home / "clip-large", sizes.text[1], sizes.features[1], "gelu")
    make_phi(home / "phi-small.pt", sizes.features[0], sizes.text[0])
    make_phi(home / "phi-large.pt", sizes.features[1], sizes.text[1])
    make_sdxl(home / "sdxl", sum(sizes.text), sizes.features[1])
    make_pic2word(home / "pic2word-small.pt", sizes.features[0], sizes.text[0])


def make_clip(folder: Path, width: int, features: int, activation: str) -> None:
    """ViT and text transformer of two layers; the vocabulary, context and picture size are CLIP's."""
    from transformers import CLIPConfig, CLIPModel

    text: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision = {**text, "hidden_size": 24, "patch_size": 56}
    for part in (text, vision):
        part |= {"projection_dim": features, "hidden_act": activation}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=features)
    CLIPModel(config).save_pretrained(folder)


def make_phi(path: Path, features: int, width: int) -> None:
    import torch

    from cig import Phi

    torch.save({"Phi": Phi(features, 2 * features, width).state_dict()}, path)


def make_pic2word(path: Path, features: int, width: int) -> None:
    """As the hub's pic2word_large.pt: every name after `module.`."""
    import torch

    from cig.models.phi import Im2Text

    weights = Im2Text(features, 2 * features, width).state_dict()
    torch.save({"state_dict_img2text": {f"module.{name}": own for name, own in weights.items()}}, path)


def make_siglip(folder: Path, size: int = 32) -> None:
    """A SigLIP with its own picture size, context and vocabulary."""
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    shape: dict[str, Any] = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**shape, "hidden_size": 20, "image_size": size, "patch_size": 16}
    words = len(make_word_tokenizer(folder))
    text = {**shape, "hidden_size": 16, "projection_size": 20, "vocab_size": words, "max_position_embeddings": 12}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)


def make_captioner(folder: Path, size: int = 32) -> None:
    """A ViT that sees and a GPT-2 that tells, as in ViT-GPT2; it says noise."""
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig
    from transformers import ViTImageProcessorPil as Processor

    words = len(make_word_tokenizer(folder))
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision = ViTConfig(**shape, num_attention_heads=2, image_size=size, patch_size=16)
    text = GPT2Config(vocab_size=words, n_positions=40, n_embd=16, n_layer=1, n_head=2, add_cross_attention=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    VisionEncoderDecoderModel(config).save_pretrained(folder)
    Processor(size={"height": size, "width": size}).save_pretrained(folder)


def make_vision_language(folder: Path, size: int = 32) -> None:
    """A LLaVA, whose processor needs no torchvision; it knows the captions' words, digits, yes and no."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = make_word_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.add_tokens(["yes", "no", *map(str, range(1, 10))])
    side = {"height": size, "width": size}
    pictures = CLIPImageProcessorPil(size=side, crop_size=side)
    names = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(pictures, tokenizer, patch_size=16, **names).save_pretrained(folder)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    vision = CLIPVisionConfig(**shape, num_attention_heads=2, image_size=size, patch_size=16)
    text = LlamaConfig(**shape, num_attention_heads=2, vocab_size=len(tokenizer), initializer_range=0.3)
    token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=token)
    LlavaForConditionalGeneration(config).save_pretrained(folder)


def make_word_tokenizer(folder: Path) -> Any:
    """Of the captions' lower-case words, one token each; it pads with 0 and ends with 2."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    fast = Tokenizer(models.WordLevel(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.train_from_iterator([text.lower() for text in CAPTIONS], trainers.WordLevelTrainer(special_tokens=special))
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_sdxl(folder: Path, prompt: int, pooled: int) -> None:
    """SDXL's architecture (text_time conditioning, two towers wide) with a UNet and a VAE of a few thousand weights."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 1),
        norm_num_groups=8,
        cross_attention_dim=prompt,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=pooled + 6 * 8,
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    channels = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": 4}
    vae = AutoencoderKL(**blocks, **channels, scaling_factor=0.13025)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    absent = dict.fromkeys(["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
    StableDiffusionXLPipeline(unet=unet, vae=vae, scheduler=scheduler, **absent).save_pretrained(folder)


# The walk


def verbs(root: Path, out: Path) -> list[list[str]]:
    """The command lines of the main job, without the leading `cig`."""
    models, images = root / "models", out / "images"
    compose = ["--clip", f"{models}/clip-small", "--clip2", f"{models}/clip-large"]
    compose += ["--phi", f"{models}/phi-small.pt", "--phi2", f"{models}/phi-large.pt"]
    sdxl = ["--model-path", f"{models}/sdxl", "--sdxl-repo", f"{models}/sdxl", "--vae-repo", f"{models}/sdxl/vae"]
    sdxl += ["--height", "64", "--width", "64", "--steps", "4"]
    search = ["--clip", f"{models}/clip-small", "--phi", f"{models}/phi-small.pt"]
    lines = []
    for name, folder, last in (
        ("fashioniq/val", "FashionIQ", "evaluate"),
        ("cirr/val", "CIRR", "run"),
        ("cirr/test1", "CIRR", "submit"),
        ("circo/test", "CIRCO", "submit"),
    ):
        data = [name, "--dataset-path", f"{root / folder}", "--device", "cpu"]
        slug = name.replace("/", "_")
        if last == "run":
            searcher = ["--search-clip", search[1], "--search-phi", search[3]]
            lines += [
                ["check", name, "--dataset-path", f"{root / folder}"],
                ["stats", name, "--dataset-path", f"{root / folder}"],
                ["plan", *data, *compose, *sdxl, *searcher],
            ]
            lines.append(["run", *data, *compose, *sdxl, *searcher, "--out", f"{out}/{slug}"])
            continue
        lines.append(["extract", *data, "--text-embeddings-dir", f"{out}/embeddings/{slug}", *compose])
        own = ["--text-embeddings-dir", f"{out}/embeddings/{slug}", "--save-path", f"{images}/{slug}"]
        lines.append(["generate", *data, *own, *sdxl])
        result = ["--json", f"{out}/{slug}.json", "--rankings", f"{out}/{slug}.rankings.json"]
        if last == "submit":
            result = ["--submission-name", slug, "--output-dir", f"{out}/submissions"]
        lines.append([last, *data, *search, "--generated-image-dir", f"{images}/{slug}", *result])
    return lines


@messages_on_stderr()
def main() -> None:
    from cig.cli.main import app
    from cig.runtime import quiet_transformers

    quiet_transformers()
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "build/tiny")
    print(f"Making a tiny world in {root}; its weights are random, so its scores are those of chance.")
    make(root)
    for line in verbs(root, root / "outputs"):
        print(f"\n$ cig {' '.join(line)}", flush=True)
        app(line, result_action="return_value")
    print(f"\nEmbeddings, pseudo-targets, scores and submission files are in {root / 'outputs'}.")
    print(f"Open {root / 'outputs/cirr_val/report.html'} in a browser.")


if __name__ == "__main__":
    main()
