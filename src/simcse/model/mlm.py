"""The masked-language-model head, for the paper's auxiliary term (Gao et al. 2021, section 6.3)."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simcse.io.checkpoints import read_safetensors
from simcse.model import huggingface
from simcse.model.backbone import Backbone
from simcse.model.dropout import draw, seed_tokens
from simcse.text import TokenBatch

# Names of the dense layer, the layer norm and the bias in Hugging Face checkpoints, by family.
_FAMILIES = (
    (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    ),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),  # RoBERTa, XLM-R, MPNet
    ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),  # DistilBERT
)
_OURS = ("mlm.dense", "mlm.norm", "mlm.bias")  # for an architecture with another head
_OLD_NAMES = {"weight": "gamma", "bias": "beta"}  # layer norms of google-bert's checkpoints


def read_mlm_head(backbone: Backbone, folder: Path) -> tuple["MlmHead", bool]:
    """Make an MLM head with the weights stored in a model folder; ``False`` says it is a new one.

    Raises:
        ArtifactError: the stored weights are damaged.
    """
    head = MlmHead(backbone)
    stored: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        stored |= read_safetensors(path)
    return head, head.load(stored)


def _names(family: tuple[str, str, str]) -> dict[str, str]:
    """Return a family's names by ours."""
    layers = zip(("dense", "norm"), family, strict=False)
    both = [(f"{ours}.{t}", f"{theirs}.{t}") for ours, theirs in layers for t in ("weight", "bias")]
    return {**dict(both), "bias": family[2]}


class MlmHead(nn.Module):
    """Dense, GELU, layer norm, and a decoder tied to the backbone's input embeddings."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        config = backbone.model.config
        self.is_usual = getattr(config, "hidden_act", "gelu") == "gelu" and getattr(
            config, "tie_word_embeddings", True
        )  # else the architecture's own head computes something else
        table = backbone.model.get_input_embeddings().weight  # (V, E)
        self.dense = nn.Linear(backbone.width, table.shape[1])
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        eps = getattr(config, "layer_norm_eps", 1e-12)  # DistilBERT fixes it
        self.norm = nn.LayerNorm(table.shape[1], eps=eps)
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Score the vocabulary: hidden (M, D), embedding table (V, E) -> logits (M, V)."""
        features = self.norm(nn.functional.gelu(self.dense(hidden)))  # (M, E)
        return nn.functional.linear(features, table, self.bias)

    def load(self, stored: Mapping[str, Tensor]) -> bool:
        """Load a checkpoint's MLM head; say whether it has one that fits."""
        own = self.state_dict()
        for family in (*(_FAMILIES if self.is_usual else ()), _OURS):
            found = {name: _find(stored, theirs) for name, theirs in _names(family).items()}
            if all(x is not None and x.shape == own[name].shape for name, x in found.items()):
                self.load_state_dict(found)
                return True
        return False

    def for_checkpoint(self, model: Any) -> tuple[dict[str, Tensor], str | None]:  # noqa: ANN401 - HF has no common type
        """Return the weights by a checkpoint's names, and the transformers class that reads them.

        The class is ``None``, and the names are ours, where the architecture has another head.
        """
        own = self.state_dict()
        whole = huggingface.masked_model(model.config) if self.is_usual else None
        theirs = {} if whole is None else whole.state_dict()
        for family in _FAMILIES:
            names = _names(family)
            if all(
                name in theirs and theirs[name].shape == own[n].shape for n, name in names.items()
            ):
                return {name: own[ours] for ours, name in names.items()}, type(whole).__name__
        return {name: own[ours] for ours, name in _names(_OURS).items()}, None


def _find(stored: Mapping[str, Tensor], name: str) -> Tensor | None:
    layer, _, tensor = name.rpartition(".")
    return stored.get(name, stored.get(f"{layer}.{_OLD_NAMES[tensor]}"))


def mask_tokens(
    batch: TokenBatch,
    *,
    rate: float,
    mask_id: int,
    special_ids: Iterable[int],
    vocabulary: int,
    key: int,
) -> tuple[TokenBatch, Tensor]:
    """Mask tokens as BERT does: 80 % become the mask, 10 % a random token, 10 % stay.

    Special tokens are never chosen. The choice is a function of ``key`` and of each token's
    sentence number and position, so processes that share a batch mask the same tokens as one.

    Returns:
        The masked copy and (T,) bool, the tokens that the model must predict.
    """
    ids = batch.input_ids
    special = torch.isin(ids, torch.tensor(sorted(special_ids), device=ids.device))
    seeds = seed_tokens(batch.sentences, batch.positions, key)
    chosen = (draw(seeds, 0, 1 << 24) < rate * (1 << 24)) & ~special
    fate, word = draw(seeds, 1, 10), draw(seeds, 2, vocabulary)
    masked = torch.where(chosen & (fate < 8), mask_id, ids)
    masked = torch.where(chosen & (fate == 9), word, masked)
    return TokenBatch(masked, batch.lengths, batch.original_index), chosen
