"""New models: a tokenizer trained on text, and a BERT with random weights."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from simcse.errors import ConfigError, DataError
from simcse.io.files import clean_text
from simcse.model.backbone import Backbone
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead
from simcse.model.settings import ModelSettings
from simcse.text import Tokenizer

Subwords = Literal["wordpiece", "bpe"]
# layers, width, heads: Turc et al. 2019, "Well-Read Students Learn Better", and BERT's base
SHAPES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
}
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
MAX_LENGTH = 128


@dataclass(frozen=True)
class NewModel:
    """The shape of a new model."""

    layers: int  # number of transformer layers
    width: int  # size of a hidden state; the layers in between are four times as wide
    heads: int  # attention heads of a layer
    # Largest number of tokens; a small text gives fewer. At most a quarter of WordPiece's tokens
    # are letters, the most common ones.
    vocabulary: int = 16_000
    # How it splits words: WordPiece as BERT, or byte-level BPE as RoBERTa.
    subwords: Subwords = "wordpiece"
    cased: bool = False  # whether "May" and "may" are different words
    positions: int = 512  # longest sentence in tokens

    def __post_init__(self) -> None:
        if min(self.layers, self.width, self.heads) < 1 or self.width % self.heads:
            raise ConfigError(
                "layers, width and heads must be at least 1 and the width a multiple of the heads, "
                f"got {self.layers}, {self.width} and {self.heads}"
            )
        if self.vocabulary < 300:  # BPE begins with 256 bytes
            raise ConfigError(f"the vocabulary must be at least 300, got {self.vocabulary}")
        if self.positions < 8:
            raise ConfigError(f"positions must be at least 8, got {self.positions}")


def new_model(shape: NewModel, texts: Iterable[str], *, seed: int) -> SentenceEncoder:
    """Train a tokenizer on ``texts`` and add a BERT and its MLM head with random weights.

    It pools by the mean: no token of a new model was trained to stand for the sentence.

    Raises:
        DataError: the texts have no words.
    """
    hf_tokenizer = train_tokenizer(shape, texts)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(hf_tokenizer),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        max_position_embeddings=shape.positions,
        pad_token_id=hf_tokenizer.pad_token_id,
    )
    backbone = Backbone(BertModel(config, add_pooling_layer=False).eval())
    settings = ModelSettings(pooling="mean", max_length=min(MAX_LENGTH, shape.positions))
    tokenizer = Tokenizer(hf_tokenizer, max_length=settings.max_length)
    encoder = SentenceEncoder(backbone, tokenizer, settings, provenance={"new": asdict(shape)})
    encoder.mlm_head = MlmHead(backbone)
    return encoder


def train_tokenizer(shape: NewModel, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a sub-word tokenizer; the same texts give the same one.

    Accents always stay: in many languages they distinguish words.

    Raises:
        DataError: the texts have no words.
    """
    train = _wordpiece if shape.subwords == "wordpiece" else _bpe
    raw = train(shape, [clean_text(text) for text in texts])
    cls, sep = ((name, raw.token_to_id(name)) for name in ("[CLS]", "[SEP]"))
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
    )
    if raw.get_vocab_size() == len(SPECIAL):
        raise DataError("the texts have no words to train a tokenizer on")
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=shape.positions, **SPECIAL
    )


def _wordpiece(shape: NewModel, texts: Sequence[str]) -> RawTokenizer:
    """Train WordPiece on a fixed alphabet.

    Left to the trainer, the letters inside words are numbered in the order of a hash table, which
    also decides between merges of equal count: every time another tokenizer.
    """
    raw = RawTokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    raw.normalizer = normalizers.BertNormalizer(lowercase=not shape.cased, strip_accents=False)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    counts, inside = Counter[str](), set[str]()
    for text in texts:
        for word in raw.normalizer.normalize_str(text).split():
            counts.update(word)
            inside.update(word[1:])
    common = sorted(counts, key=lambda letter: (-counts[letter], letter))
    alphabet = sorted(common[: shape.vocabulary // 4])
    first = [*SPECIAL.values(), *(f"##{letter}" for letter in alphabet if letter in inside)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    known = raw.get_vocab(with_added_tokens=False)
    plain = RawTokenizer(models.WordPiece(known, unk_token=SPECIAL["unk_token"]))
    plain.normalizer, plain.pre_tokenizer = raw.normalizer, raw.pre_tokenizer
    plain.decoder = raw.decoder
    return plain  # in which the letters are not special


def _bpe(shape: NewModel, texts: Sequence[str]) -> RawTokenizer:
    raw = RawTokenizer(models.BPE())
    steps = [normalizers.NFC(), *([] if shape.cased else [normalizers.Lowercase()])]
    raw.normalizer = normalizers.Sequence(steps)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[*SPECIAL.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return raw
