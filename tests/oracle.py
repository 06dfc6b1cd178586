"""A plain second implementation, to compare with: direct transformers and diffusers calls, an explicit causal mask.

It shares no code with cig beyond the vendored vocabulary file, and is written for reading, not for speed.
"""

import gzip
import html
import itertools
import json
import math
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

import ftfy
import numpy as np
import regex
import torch
from PIL import Image
from torch.nn.functional import gelu, layer_norm, linear, normalize, softmax

WORD = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)
START, END, DOLLAR, CONTEXT = 49406, 49407, 259, 77


# Tokens: byte-pair encoding by OpenAI's rules


@cache
def vocabulary():
    packed = resources.files("cig").joinpath("assets/openai-clip/bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = [tuple(line.split()) for line in gzip.decompress(packed).decode().split("\n")[1 : 49152 - 256 - 2 + 1]]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in visible}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(visible))
    order = [*letters.values(), *(letter + "</w>" for letter in letters.values()), *map("".join, merges)]
    return letters, {pair: i for i, pair in enumerate(merges)}, {word: i for i, word in enumerate(order)}


@cache
def pieces(word):
    letters, ranks, ids = vocabulary()
    parts = [letters[byte] for byte in word.encode()]
    parts[-1] += "</w>"
    while len(parts) > 1:
        best = min(itertools.pairwise(parts), key=lambda pair: ranks.get(pair, math.inf))
        if best not in ranks:
            break
        merged, i = [], 0
        while i < len(parts):
            here = tuple(parts[i : i + 2]) == best
            merged.append("".join(best) if here else parts[i])
            i += 2 if here else 1
        parts = merged
    return [ids[part] for part in parts]


def tokens(text):
    """Start, words, end, zeros: 77 ids; the end is kept when the text is cut."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    text = regex.sub(r"\s+", " ", text).strip().lower()
    special = {"<|startoftext|>": [START], "<|endoftext|>": [END]}
    ids = [START, *(i for word in WORD.findall(text) for i in special.get(word) or pieces(word)), END]
    ids = ids if len(ids) <= CONTEXT else [*ids[: CONTEXT - 1], END]
    return ids + [0] * (CONTEXT - len(ids))


# CLIP's text tower, by hand from the state dict


@lru_cache(maxsize=2)  # a world has two CLIPs; more would keep those of the real sizes in memory
def text_tower(folder):
    """(configuration, weights by name)"""
    from transformers import CLIPTextModelWithProjection

    model = CLIPTextModelWithProjection.from_pretrained(folder)
    return model.config, {name.replace("text_model.", ""): value for name, value in model.state_dict().items()}


def text_states(folder, ids, words, first_only=False):
    """(hidden before the last layer, final states, pooled) of ids [B, 77], words [B, h] at every (or the first) $."""
    config, weights = text_tower(folder)
    places = ids == DOLLAR
    if first_only:
        places &= places.cumsum(1) == 1
    x = weights["embeddings.token_embedding.weight"][ids]
    x = torch.where(places[..., None], words[:, None], x) if words is not None else x
    x = x + weights["embeddings.position_embedding.weight"][: ids.shape[1]]
    hidden = [x]
    for layer in range(config.num_hidden_layers):
        x = block(x, {k.split(f"layers.{layer}.")[1]: v for k, v in weights.items() if f"layers.{layer}." in k}, config)
        hidden.append(x)
    final = layer_norm(
        x, x.shape[-1:], weights["final_layer_norm.weight"], weights["final_layer_norm.bias"], config.layer_norm_eps
    )
    pooled = final[torch.arange(len(ids)), ids.argmax(1)] @ weights["text_projection.weight"].T
    return hidden[-2], final, pooled


def block(x, w, config):
    batch, length, width = x.shape
    heads = config.num_attention_heads
    y = layer_norm(x, (width,), w["layer_norm1.weight"], w["layer_norm1.bias"], config.layer_norm_eps)
    q, k, v = (
        linear(y, w[f"self_attn.{n}_proj.weight"], w[f"self_attn.{n}_proj.bias"])
        .view(batch, length, heads, width // heads)
        .transpose(1, 2)
        for n in "qkv"
    )
    mask = torch.full((length, length), -torch.inf).triu(1)
    attended = softmax(q @ k.transpose(2, 3) / math.sqrt(width // heads) + mask, dim=-1) @ v
    attended = attended.transpose(1, 2).reshape(batch, length, width)
    x = x + linear(attended, w["self_attn.out_proj.weight"], w["self_attn.out_proj.bias"])
    y = layer_norm(x, (width,), w["layer_norm2.weight"], w["layer_norm2.bias"], config.layer_norm_eps)
    y = linear(y, w["mlp.fc1.weight"], w["mlp.fc1.bias"])
    y = y * torch.sigmoid(1.702 * y) if config.hidden_act == "quick_gelu" else gelu(y)
    return x + linear(y, w["mlp.fc2.weight"], w["mlp.fc2.bias"])


# Pictures


@lru_cache(maxsize=2)
def picture_tower(folder):
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection.from_pretrained(folder).eval()


def image_features(folder, pixels):
    with torch.no_grad():
        return picture_tower(folder)(pixels).image_embeds


def stage1_pixels(path):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}, resample=3)
    return processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]


def stage3_pixels(path, pad=True):
    """TargetPad(1.25), Resize(224, bicubic), CenterCrop(224), RGB, ToTensor, Normalize, spelled out."""
    image = Image.open(path)
    w, h = image.size
    if pad and max(w, h) / min(w, h) >= 1.25:
        target = max(w, h) / 1.25
        dx, dy = max(int((target - w) / 2), 0), max(int((target - h) / 2), 0)
        canvas = image.resize((w + 2 * dx, h + 2 * dy))  # for the mode and the palette
        canvas.paste(0 if len(image.getbands()) == 1 else (0,) * len(image.getbands()), (0, 0, *canvas.size))
        canvas.paste(image, (dx, dy))
        image, (w, h) = canvas, canvas.size
    short = min(w, h)
    size = (224, int(224 * h / w)) if w == short else (int(224 * w / h), 224)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    image = image.crop((left, top, left + 224, top + 224)).convert("RGB")
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return ((pixels - mean) / std)[None]


# Phi


def phi(path, features):
    w = torch.load(path, weights_only=True)["Phi"]
    x = gelu(linear(features, w["layers.0.weight"], w["layers.0.bias"]))
    x = gelu(linear(x, w["layers.3.weight"], w["layers.3.bias"]))
    return linear(x, w["layers.6.weight"], w["layers.6.bias"])


# The three stages on one query


def embedding(models, picture, caption):
    """Stage 1: the published file of one query."""
    ids = torch.tensor([tokens(f"a photo of $ that {caption}")])
    out = {}
    for suffix, clip, net in (("", "clip-small", "phi-small.pt"), ("2", "clip-large", "phi-large.pt")):
        words = phi(models / net, image_features(models / clip, stage1_pixels(picture)))
        hidden, final, pooled = text_states(models / clip, ids, words)
        out |= {f"conditioning{suffix}": hidden[0], f"pooled{suffix}": pooled[0] if suffix else final[0]}
    return out


def pipeline(models):
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(models / "sdxl")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe, files, seed, size=64, steps=4):
    """Stage 2: one picture from one embedding; guidance and negative embeddings are the library's."""
    prompt = torch.cat([files["conditioning"], files["conditioning2"]], dim=-1)[None]
    return pipe(
        prompt_embeds=prompt,
        pooled_prompt_embeds=files["pooled2"][None],
        height=size,
        width=size,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(seed)],
    ).images[0]


@cache
def searched(models, path, pad):
    """Stage 3's feature [1, p] of a picture; kept, because every query looks at the same gallery."""
    return image_features(models / "clip-small", stage3_pixels(path, pad))


def query_feature(models, path, captions, first_only=True, pad=True):
    """Stage 3: the unit feature of one picture and its captions; both orders of two captions, averaged."""
    texts = [captions[0]]
    if len(captions) == 2:
        a, b = (text.strip(".?, ") for text in captions)
        texts = [f"{a} and {b}", f"{b} and {a}"]
    words = phi(models / "phi-small.pt", searched(models, path, pad))
    features = []
    for text in texts:
        ids = torch.tensor([tokens(f"a photo of $ that {text}")])
        features.append(normalize(text_states(models / "clip-small", ids, words, first_only)[2], dim=-1))
    return normalize(sum(features) / len(features), dim=-1)[0]


def ranking(feature, names, paths, models, drop=None, pad=True):
    """All names, nearest first."""
    gallery = torch.cat([searched(models, path, pad) for path in paths])
    scores = (normalize(gallery, dim=-1) @ feature).tolist()
    order = sorted(range(len(names)), key=lambda i: -scores[i])
    return [names[i] for i in order if names[i] != drop]


def read(path):
    return json.loads(Path(path).read_text())
