"""Fixtures everybody uses: a tiny BERT built from nothing, and where the shared data is."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings as hypothesis_settings
from tokenizers import Tokenizer as WordPieceTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from postgres import Postgres, servers
from simcse.model.backbone import Backbone
from simcse.model.encoder import SentenceEncoder
from simcse.model.settings import ModelSettings
from simcse.text import Tokenizer

hypothesis_settings.register_profile("project", deadline=None)  # a busy machine is no failure
hypothesis_settings.load_profile("project")

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "man", "woman", "dog", "cat", "is", "play", "##ing", "guitar", "eat", "run"]
SENTENCES = [
    "A man is playing a guitar.",
    "The dog runs.",
    "",
    "a",
    "The woman is eating, and the cat is running after the dog!",
    "Two men play the guitar in 2021",
]


def shared(variable: str, name: str) -> Path:
    """Folder named by an environment variable, else under ../shared; skips where it is not."""
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"needs {variable} or {folder}")
    return folder


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer that knows every ASCII character, so no text is lost."""
    letters = [*string.ascii_lowercase, *string.digits]
    pieces = [*SPECIAL, *WORDS, *letters, *(f"##{c}" for c in letters), *string.punctuation]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    inner = WordPieceTokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )


def tiny_bert(vocabulary: int, *, layers: int = 2) -> BertModel:
    """A seeded BERT with weights large enough that its layers matter."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def build_encoder(settings: ModelSettings, *, layers: int = 2) -> SentenceEncoder:
    """A new tiny encoder; its weights are the same at every call."""
    tokenizer = tiny_tokenizer()
    backbone = Backbone(tiny_bert(len(tokenizer), layers=layers))
    cutting = Tokenizer(tokenizer, max_length=settings.max_length)
    return SentenceEncoder(backbone, cutting, settings, provenance={"made by": "tests/conftest.py"})


@pytest.fixture(scope="session", autouse=True)
def own_cache_of_the_session(tmp_path_factory):
    """Keep what tests find out about the machine out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make_encoder() -> Callable[..., SentenceEncoder]:
    """Makes tiny encoders: ``make_encoder(settings, layers=2)``."""
    return build_encoder


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """A few sentences of several lengths, an empty one among them."""
    return list(SENTENCES)


@pytest.fixture
def tiny_encoder() -> SentenceEncoder:
    """A fresh tiny encoder: mean pooling, fp32, at most 32 tokens."""
    return build_encoder(ModelSettings(pooling="mean", max_length=32))


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder, saved; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_encoder(ModelSettings(pooling="mean", max_length=32)).save(folder)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; each test makes indexes of its own: ``postgres.new_index()``."""
    with servers() as home:
        yield Postgres(home).create().start()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Evaluation and training data."""
    return shared("SIMCSE_DATA", "data")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Pretrained models."""
    return shared("SIMCSE_MODELS", "models")
