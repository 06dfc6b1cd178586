"""CLIP against the plain oracle: tokens, pseudo-words, states, pooling; then the real configurations."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection

import oracle
from cig.errors import InputError, MismatchError, NotFoundError, ShortMemoryError
from cig.models import clip as clips
from cig.models._meta import clip_widths
from cig.models.clip import Clip, load_clip, placeholder_mask
from cig.models.tokenizer import Tokenizer, load_tokenizer, openai_tokenizer
from tokenizers_of_ours import own_tokenizer

CPU, FLOAT = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def tokenizer():
    return openai_tokenizer()


@pytest.fixture(scope="module")
def clip(world):
    return load_clip(str(world / "models/clip-small"), CPU, FLOAT)


# Tokens


def test_known_tokens(tokenizer):
    """As OpenAI's tokenizer gives them."""
    assert tokenizer(["a photo of $ that"]) == [[49406, 320, 1125, 539, 259, 682, 49407]]
    assert tokenizer.placeholder == 259
    assert tokenizer([]) == []


def test_lone_surrogates_and_nul(tokenizer):
    assert tokenizer(["a \ud800 dog\x00"]) == tokenizer(["a ? dog\x00"])


WRITTEN = st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=80)  # of assigned characters
ODD = st.sampled_from(
    ["costs $5", "!!", "it's", "&amp;amp;", "  a\t b\n", "naïve CAFÉ", "x" * 300, "犬と猫", "", "$$ $"]
)


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(WRITTEN, st.lists(ODD, max_size=30).map(" ".join)))
def test_tokens_agree_with_the_oracle(tokenizer, text):
    assert tokenizer.padded(tokenizer([text]))[0].tolist() == oracle.tokens(text)


@pytest.mark.slow
def test_tokens_agree_on_real_captions(tokenizer, annotations):
    captions = [entry["caption"] for entry in oracle.read(annotations / "cirr/captions/cap.rc2.val.json")]
    captions += [
        text
        for entry in oracle.read(annotations / "fashioniq/captions/cap.shirt.val.json")
        for text in entry["captions"]
    ]
    prompts = [f"a photo of $ that {caption}" for caption in captions]
    assert tokenizer.padded(tokenizer(prompts)).tolist() == [oracle.tokens(prompt) for prompt in prompts]


def test_a_folder_may_carry_its_own_tokenizer(tmp_path):
    fast = own_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path, 12)
    assert (tokenizer.context, tokenizer.pad, tokenizer.end) == (12, 0, 2)
    assert tokenizer.placeholder == fast.token_to_id("$")
    rows = tokenizer(["a photo of $ that is red", "red " * 40])
    assert (rows[0][0], rows[0][-1], len(rows[1]), rows[1][-1]) == (1, 2, 12, 2)


def test_a_tokenizer_that_splits_the_placeholder_is_refused(tmp_path):
    from transformers import PreTrainedTokenizerFast

    own_tokenizer(tmp_path)
    with pytest.raises(MismatchError, match="splits"):
        Tokenizer(Split(PreTrainedTokenizerFast.from_pretrained(tmp_path)), 12, 0)


class Split:
    """A tokenizer that makes two tokens of everything."""

    eos_token_id = 2

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, **options):
        return {"input_ids": [5, 6]}


def test_a_copy_of_openais_tokenizer_still_pads_with_zero(tmp_path):
    """Copies in the wild pad with the end token; padding takes part in SDXL's cross-attention."""
    openai_tokenizer().tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    assert load_tokenizer(tmp_path, 77).pad == 0


def bpe(folder, merges):
    """The files of a vocabulary as OpenAI wrote its own, with the first merges of it."""
    backend = json.loads(openai_tokenizer().tokenizer.backend_tokenizer.to_str())["model"]
    kept = backend["merges"][:merges]
    words = [*list(backend["vocab"])[:512], *("".join(pair) for pair in kept), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in kept))
    (folder / "config.json").write_text('{"model_type": "clip"}')
    return folder


def test_a_vocabulary_in_two_files_with_added_tokens(tmp_path):
    """With the first two merges, "in" and "th": "thin" is th, in; an added token is one, whatever the merges."""
    bpe(tmp_path, 2)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    assert (list(vocabulary)[512:514], end) == (["in", "th"], 515)
    tokenizer = load_tokenizer(tmp_path, 77)
    assert tokenizer(["thi$"]) == [[start, 513, vocabulary["i</w>"], tokenizer.placeholder, end]]
    (tmp_path / "added_tokens.json").write_text('{"<new>": 516}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "!"}')
    tokenizer = load_tokenizer(tmp_path, 77)
    assert tokenizer(["<new>"]) == [[start, 516, end]]
    assert tokenizer.pad == vocabulary["!"] == 0


def test_other_merges_of_openais_tokens_are_another_tokenizer(tmp_path):
    openai_tokenizer().tokenizer.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][::-1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert load_tokenizer(tmp_path, 77)(["a photo"]) != openai_tokenizer()(["a photo"])


def test_a_vocabulary_without_its_merges(tmp_path):
    bpe(tmp_path, 2)
    for name in ("merges.txt", "vocab.json"):
        (tmp_path / name).rename(tmp_path / "aside")
        with pytest.raises(NotFoundError, match=name):
            load_tokenizer(tmp_path, 77)
        (tmp_path / "aside").rename(tmp_path / name)
    (tmp_path / "merges.txt").unlink()
    (tmp_path / "vocab.json").write_text('{"!": 0}')  # nothing but OpenAI's
    assert load_tokenizer(tmp_path, 77)(["a red dress"]) == openai_tokenizer()(["a red dress"])


# States


def test_text_states_are_the_oracles(world, clip):
    prompts = ["a photo of $ that costs $5", "a photo of $ that is red", "a photo of $ " + "long " * 100]
    words = torch.randn(3, clip.token_width)
    ids = torch.tensor([oracle.tokens(prompt) for prompt in prompts])
    hidden, last, pooled = oracle.text_states(world / "models/clip-small", ids, words)
    states = clip.text_states(prompts, words)
    assert torch.allclose(states.hidden, hidden, atol=1e-5)
    assert torch.allclose(states.last, last, atol=1e-5)
    assert torch.allclose(states.pooled, pooled, atol=1e-5)


@pytest.mark.parametrize("placement", ["every", "first"])
def test_pooled_text_at_its_real_length_is_the_oracles(world, clip, placement):
    prompts = ["a photo of $ that costs $5 or $6", "a photo of $", "no word at all"]
    words = torch.randn(3, clip.token_width)
    ids = torch.tensor([oracle.tokens(prompt) for prompt in prompts])
    pooled = oracle.text_states(world / "models/clip-small", ids, words, first_only=placement == "first")[2]
    assert torch.allclose(clip.embed_texts(prompts, words, placement), pooled, atol=1e-5)


def test_only_the_real_length_is_encoded(clip):
    """A counter on the token embedding: as many positions as the texts have tokens, not 77 each."""
    seen = []
    hook = clip.text.get_input_embeddings().register_forward_hook(lambda m, args, out: seen.append(args[0].numel()))
    prompts = ["a dog", "a cat", "a photo of a long red dress"] * 5
    clip.embed_texts(prompts)
    hook.remove()
    assert sum(seen) == sum(map(len, clip.tokenizer(prompts))) < 10 * len(prompts)
    assert len(seen) == 2


def test_the_hook_leaves_no_trace(clip):
    before = clip.embed_texts(["a photo of $"])
    clip.embed_texts(["a photo of $"], torch.randn(1, clip.token_width))
    assert torch.equal(before, clip.embed_texts(["a photo of $"]))
    assert not clip.text.get_input_embeddings()._forward_hooks


def test_placeholder_mask():
    ids = torch.tensor([[1, 9, 2, 9], [3, 3, 3, 3]])
    assert placeholder_mask(ids, 9, "every").int().tolist() == [[0, 1, 0, 1], [0, 0, 0, 0]]
    assert placeholder_mask(ids, 9, "first").int().tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_image_features_are_the_oracles(world, clip):
    pixels = torch.randn(3, 3, 224, 224)
    assert torch.allclose(
        clip.embed_images(pixels), oracle.image_features(world / "models/clip-small", pixels), atol=1e-5
    )


def test_batch_1_equals_batch_7(clip):
    pixels, prompts = torch.randn(7, 3, 224, 224), [f"a photo of $ that {'x ' * i}" for i in range(7)]
    words = torch.randn(7, clip.token_width)
    one = torch.cat([clip.embed_images(row[None]) for row in pixels])
    assert torch.allclose(one, clip.embed_images(pixels), atol=1e-5)
    one = torch.cat([clip.embed_texts([prompt], word[None]) for prompt, word in zip(prompts, words, strict=True)])
    assert torch.allclose(one, clip.embed_texts(prompts, words), atol=1e-5)


# Loading


def test_missing_weights_are_an_error_not_noise(world, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights of a CLIP: text_projection\.weight"):
        load_clip(str(folder), CPU, FLOAT)


def test_truncated_weights_and_empty_folders(world, tmp_path):
    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip")
    (folder / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_clip(str(folder), CPU, FLOAT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match=r"no config\.json"):
        load_clip(str(tmp_path / "empty"), CPU, FLOAT)
    with pytest.raises(MismatchError, match='model_type is "None", not "clip"'):
        load_clip(str(world / "models/sdxl/unet"), CPU, FLOAT)


def test_an_unreachable_hub_id_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotFoundError, match="someone/no-such-clip"):
        load_clip("someone/no-such-clip", CPU, FLOAT)


@pytest.mark.parametrize("towers", [{}, {"projection_dim": 512}])
def test_the_width_of_features_is_the_top_levels(world, tmp_path, towers):
    """Towers that lack it, or state transformers' default, as CLIPModel does not look there."""
    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    for name in ("text_config", "vision_config"):
        config[name] = {key: value for key, value in config[name].items() if key != "projection_dim"} | towers
    (folder / "config.json").write_text(json.dumps(config))
    clip, whole = load_clip(folder), load_clip(world / "models/clip-small")
    assert (clip.feature_width, *clip_widths(str(folder))) == (40, 40, 32)
    assert torch.allclose(clip.embed_texts(["a red dress"]), whole.embed_texts(["a red dress"]), atol=1e-5)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        theirs = CLIPModel.from_pretrained(folder).eval().get_image_features(pixel_values=pixels).pooler_output
    assert torch.allclose(clip.embed_images(pixels), theirs, atol=1e-5)


# The real configurations, with random weights

REAL = {  # text width, heads, projection, activation, layers; an end-of-text id of 2 is what old configurations carry
    "openai/clip-vit-base-patch32": (512, 8, 512, "quick_gelu", 12, 2),
    "openai/clip-vit-large-patch14": (768, 12, 768, "quick_gelu", 12, 2),
    "Geonmo/CLIP-Giga-config-fixed": (1280, 20, 1280, "gelu", 4, 49407),  # of 32, which would take half a minute
}
VISION = {  # width, heads, feed-forward width, patch
    "openai/clip-vit-base-patch32": (768, 12, 3072, 32),
    "openai/clip-vit-large-patch14": (1024, 16, 4096, 14),
    "Geonmo/CLIP-Giga-config-fixed": (1664, 16, 8192, 14),
}


def text_options(name, layers=None):
    width, heads, projection, activation, depth, end = REAL[name]
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
    rest = {"num_hidden_layers": layers or depth, "projection_dim": projection, "hidden_act": activation}
    return {**sizes, **rest, "eos_token_id": end}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_text_towers(tmp_path, name):
    """At full width: activation, end-of-text rule, heads and projection are the configuration's."""
    config = CLIPTextConfig(**text_options(name))
    CLIPTextModelWithProjection(config).save_pretrained(tmp_path)
    text = CLIPTextModelWithProjection.from_pretrained(tmp_path).eval()
    vision = SimpleNamespace(config=SimpleNamespace(image_size=224, projection_dim=config.projection_dim))
    clip = Clip(vision, text, openai_tokenizer(), identity={})
    prompts, words = ["a photo of $ that is red!", "short $"], torch.randn(2, config.hidden_size)
    ids = torch.tensor([oracle.tokens(prompt) for prompt in prompts])
    with torch.no_grad():
        hidden, _, pooled = oracle.text_states(tmp_path, ids, words)
    states = clip.text_states(prompts, words)
    for ours, theirs in ((states.hidden, hidden), (states.pooled, pooled), (clip.embed_texts(prompts, words), pooled)):
        assert (ours - theirs).norm() / theirs.norm() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_configurations_load_whole(tmp_path, name):
    """Both towers from one CLIPModel folder, at full width and two layers deep, by the code that loads the real one."""
    width, heads, inner, patch = VISION[name]
    text = text_options(name, layers=2)
    vision = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner, "patch_size": patch}
    vision |= {key: text[key] for key in ("num_hidden_layers", "projection_dim", "hidden_act")}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=text["projection_dim"])
    CLIPModel(config).save_pretrained(tmp_path)
    clip = load_clip(str(tmp_path), CPU, FLOAT)
    assert (clip.feature_width, clip.token_width) == (text["projection_dim"], text["hidden_size"])
    assert (clip.size, clip.tokenizer.context) == (224, 77)
    words = torch.randn(1, clip.token_width)
    with torch.no_grad():
        pooled = oracle.text_states(tmp_path, torch.tensor([oracle.tokens("a red $")]), words)[2]
    assert torch.allclose(clip.embed_texts(["a red $"], words), pooled, atol=1e-4)
    pixels = torch.randn(1, 3, 224, 224)
    assert torch.allclose(clip.embed_images(pixels), oracle.image_features(tmp_path, pixels), atol=1e-4)


def test_a_tower_is_loaded_when_it_is_first_used_and_may_be_released(world, monkeypatch):
    loaded, load = [], clips._load_tower

    def noted(kind, *where, **options):
        if not options.get("device_map"):
            loaded.append(kind.__name__)
        return load(kind, *where, **options)

    monkeypatch.setattr(clips, "_load_tower", noted)
    clip = load_clip(world / "models/clip-small")
    assert loaded == []
    before = clip.embed_texts(["a"])
    assert loaded == ["CLIPTextModelWithProjection"]
    assert clip.size_of("text") == sum(tensor.nbytes for tensor in clip.text.parameters())
    clip.release("text")
    assert torch.equal(clip.embed_texts(["a"]), before)
    assert loaded == ["CLIPTextModelWithProjection"] * 2


def test_memory_that_runs_out_while_loading_is_said_as_that(world, monkeypatch):
    def no(*where, **options):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory")

    clip = load_clip(world / "models/clip-small")
    monkeypatch.setattr("transformers.CLIPTextModelWithProjection.from_pretrained", no)
    with pytest.raises(ShortMemoryError, match="float16"):
        clip.embed_texts(["a"])


@pytest.mark.parametrize("name", ["searle", "image"])
def test_a_benchmark_is_searched_without_the_picture_tower_in_memory(world, name):
    from cig import Source, load_method
    from cig.retrieval.features import release_pictures

    models = world / "models"
    phi = {"phi": models / "phi-small.pt"} if name == "searle" else {}
    method = load_method(name, Source(clip=models / "clip-small", **phi))
    clip = getattr(method, "clip", None) or method.tower
    features = method.embed_images(torch.zeros(1, 3, clip.size, clip.size))
    assert "vision" in vars(clip)
    release_pictures(method)
    assert "vision" not in vars(clip)
    assert torch.equal(method.embed_images(torch.zeros(1, 3, clip.size, clip.size)), features)
