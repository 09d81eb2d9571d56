"""The masked-language-model head, for the paper's auxiliary term (Gao et al. 2021, section 6.3)."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from simcse.io.checkpoints import read_safetensors
from simcse.model.backbone import Backbone
from simcse.model.dropout import draw, token_keys
from simcse.text import TokenBatch

# our name -> name in a Hugging Face checkpoint, by family
_HEADS = (
    {"dense": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm"},
    {"dense": "lm_head.dense", "norm": "lm_head.layer_norm"},  # RoBERTa, XLM-R, MPNet
    {"dense": "vocab_transform", "norm": "vocab_layer_norm"},  # DistilBERT
)
_OLD_KINDS = {"weight": "gamma", "bias": "beta"}  # layer norms of google-bert's checkpoints
_BIASES = ("cls.predictions.bias", "lm_head.bias", "vocab_projector.bias")


def read_mlm_head(backbone: Backbone, folder: Path) -> tuple["MlmHead", bool]:
    """Make an MLM head with the weights stored in a model folder, or else a new one.

    Returns:
        The head, and whether its weights were stored.

    Raises:
        ArtefactError: the stored weights are damaged.
    """
    head = MlmHead(backbone)
    if getattr(backbone.model.config, "hidden_act", "gelu") != "gelu":
        return head, False  # its stored head was trained with another activation
    stored: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        stored |= read_safetensors(path)
    return head, head.load(stored)


class MlmHead(nn.Module):
    """Dense, GELU, layer norm, and a decoder tied to the backbone's input embeddings."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        table = backbone.model.get_input_embeddings().weight  # (V, E)
        self.dense = nn.Linear(backbone.width, table.shape[1])
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        eps = getattr(backbone.model.config, "layer_norm_eps", 1e-12)  # DistilBERT fixes it
        self.norm = nn.LayerNorm(table.shape[1], eps=eps)
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Score the vocabulary: hidden (M, D), embedding table (V, E) -> logits (M, V)."""
        features = self.norm(nn.functional.gelu(self.dense(hidden)))  # (M, E)
        return nn.functional.linear(features, table, self.bias)

    def load(self, stored: Mapping[str, Tensor]) -> bool:
        """Take over a checkpoint's MLM head; say whether it has one that fits."""
        for names in _HEADS:
            found = {
                f"{ours}.{kind}": stored.get(f"{theirs}.{kind}", stored.get(f"{theirs}.{old}"))
                for ours, theirs in names.items()
                for kind, old in _OLD_KINDS.items()
            }
            found["bias"] = next((stored[name] for name in _BIASES if name in stored), None)
            own = self.state_dict()
            if all(x is not None and x.shape == own[name].shape for name, x in found.items()):
                self.load_state_dict(found)
                return True
        return False


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
    sentence number and position, so processes that share a batch mask what one alone would.

    Returns:
        The masked copy and (T,) bool, which tokens the model is to guess.
    """
    ids = batch.input_ids
    special = torch.isin(ids, torch.tensor(sorted(special_ids), device=ids.device))
    keys = token_keys(batch.sentences, batch.positions, key)
    chosen = (draw(keys, 0, 1 << 24) < rate * (1 << 24)) & ~special
    fate, word = draw(keys, 1, 10), draw(keys, 2, vocabulary)
    masked = torch.where(chosen & (fate < 8), mask_id, ids)
    masked = torch.where(chosen & (fate == 9), word, masked)
    return TokenBatch(masked, batch.lengths, batch.order), chosen
