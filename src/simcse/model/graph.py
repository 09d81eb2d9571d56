"""The whole model as one graph over padded token ids: what other runtimes are given."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from simcse.model.encoder import SentenceEncoder
from simcse.model.pooling import SMALLEST_WEIGHT, SPECS, Pooling, cls_pool


class EmbeddingGraph(nn.Module):
    """Backbone, pooling, head, post-processing and normalization in one module.

    Unlike `SentenceEncoder` it takes padded batches, and has no branch that depends on them.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        super().__init__()
        self.model = encoder.backbone.padded_model()
        self.encoder = encoder.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed padded sentences: ids and mask (B, L) int64 -> (B, K) float32."""
        pooling = self.encoder.settings.pooling
        layers = SPECS[pooling].layers
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=layers != (-1,),
        )
        states = [output.last_hidden_state]
        if layers != (-1,):
            states = [output.hidden_states[layer] for layer in layers]
        weights = attention_mask
        if self.encoder.token_weights is not None:
            weights = weights * self.encoder.token_weights(input_ids)
        return self.encoder.finish(pool_padded(states, weights, pooling))


def pool_padded(states: Sequence[Tensor], weights: Tensor, pooling: Pooling) -> Tensor:
    """Reduce padded hidden states, each (B, L, D), under weights (B, L) to (B, D) float32.

    The same as `simcse.model.pooling.pool` on the tokens whose weight is not 0.
    """
    hidden = torch.stack([state.float() for state in states]).mean(0)  # (B, L, D)
    if SPECS[pooling].reduce is cls_pool:
        return hidden[:, 0]
    shown = weights.unsqueeze(-1).to(hidden.dtype)  # (B, L, 1)
    return (hidden * shown).sum(1) / shown.sum(1).clamp_min(SMALLEST_WEIGHT)
