"""Small tokenizers for tests."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers


def own_tokenizer(folder, dollar=True):
    """A small word-level tokenizer with ids, padding and context of its own."""
    fast = Tokenizer(models.WordLevel(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    words = ["<pad>", "<s>", "</s>", "<unk>"]
    text = "a photo of that is red " + ("$" if dollar else "")
    fast.train_from_iterator([text], trainers.WordLevelTrainer(special_tokens=words))
    fast.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    fast.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    return fast
