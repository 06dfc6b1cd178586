"""Part-of-speech taggers that mark LinCIR's keywords, if installed: spaCy's, which LinCIR uses, or NLTK's."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from cig.errors import UsageError
from cig.training.data.keywords import Chunker, Tagger, Word

Keywords = Literal["auto", "stopwords", "spacy", "nltk"]
SPACY_MODEL, NLTK_DATA = "en_core_web_sm", "averaged_perceptron_tagger_eng"
SPACY_TAGS = frozenset({"NOUN", "PROPN", "ADJ", "DET"})
NLTK_TAGS = frozenset({"NN", "NNS", "NNP", "NNPS", "JJ", "JJR", "JJS", "DT", "PDT"})  # the Penn Treebank's for these


class SpacyTagger:
    """spaCy's small English model, without the components that keywords do not need.

    The parser stays: its labels decide some parts of speech, by the rules of spaCy's attribute ruler.
    """

    def __init__(self) -> None:
        import spacy

        self.pipeline = spacy.load(SPACY_MODEL, exclude=["ner", "lemmatizer"])
        self.name = f"spaCy {spacy.__version__}, {SPACY_MODEL} {self.pipeline.meta['version']}"

    def __call__(self, texts: Sequence[str]) -> list[list[Word]]:
        documents = self.pipeline.pipe(texts)
        return [[Word(token.text, token.whitespace_, token.pos_ in SPACY_TAGS) for token in text] for text in documents]


class NltkTagger:
    """NLTK's averaged perceptron.

    Args:
        tagger: replaces the tagger whose data NLTK has: `tag([word]) -> [(word, tag)]`.
    """

    def __init__(self, tagger: Any = None) -> None:
        import nltk
        from nltk.tag import PerceptronTagger
        from nltk.tokenize import NLTKWordTokenizer

        self.tagger, self.tokenizer = tagger or PerceptronTagger(), NLTKWordTokenizer()
        self.name = f"NLTK {nltk.__version__}, {NLTK_DATA}"

    def __call__(self, texts: Sequence[str]) -> list[list[Word]]:
        return [list(self._words(text)) for text in texts]

    def _words(self, text: str) -> Iterator[Word]:
        spans = list(self.tokenizer.span_tokenize(text))
        tags = self.tagger.tag([text[start:end] for start, end in spans])
        following = [start for start, _ in spans[1:]] + [len(text)]
        for (start, end), (_, tag), after in zip(spans, tags, following, strict=True):
            yield Word(text[start:end], text[end:after], tag in NLTK_TAGS)


def load_tagger(kind: Keywords = "auto") -> Tagger:
    """Load a tagger; auto takes spaCy, else NLTK, else the stop-word chunker, as installed.

    Raises:
        UsageError: the tagger or its model is not installed.
    """
    if kind == "spacy" or (kind == "auto" and _has_spacy()):
        return _loaded(SpacyTagger, f"spaCy and its model: pip install spacy && python -m spacy download {SPACY_MODEL}")
    if kind == "nltk" or (kind == "auto" and _has_nltk()):
        return _loaded(NltkTagger, f"NLTK and its data: pip install nltk && python -m nltk.downloader {NLTK_DATA}")
    return Chunker()


def _loaded(tagger: type[SpacyTagger] | type[NltkTagger], needs: str) -> Tagger:
    try:
        return tagger()
    except (ImportError, LookupError, OSError) as error:
        raise UsageError(f"this tagger needs {needs}, or --keywords stopwords") from error


def _has_spacy() -> bool:
    return all(importlib.util.find_spec(name) for name in ("spacy", SPACY_MODEL))


def _has_nltk() -> bool:
    if not importlib.util.find_spec("nltk"):
        return False
    import nltk

    try:
        nltk.data.find(f"taggers/{NLTK_DATA}")
    except LookupError:
        return False
    return True
