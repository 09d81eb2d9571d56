"""The layers of BERT and its kin in few operations, while encoding.

For one short sentence the calls, checks and views of transformers' modules take longer than the
arithmetic. Training and other architectures go through them all the same.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from simcse.model.attention import Layout, attend
from simcse.model.linear import Linear

KIN = ("BertLayer", "CamembertLayer", "ElectraLayer", "RobertaLayer", "XLMRobertaLayer")


def known(model: Any) -> bool:  # noqa: ANN401 - HF has no common type
    """Whether all layers are built like BERT's; what they compute is still to be compared."""
    layers = getattr(getattr(model, "encoder", None), "layer", ())
    return bool(layers) and all(
        type(layer).__name__ in KIN and _has_own_linear(layer.attention.self) for layer in layers
    )


def _has_own_linear(module: Any) -> bool:  # noqa: ANN401
    """Whether the projections are ours: a quantized model has others."""
    return all(isinstance(part, Linear) for part in (module.query, module.key, module.value))


def run(model: Any, ids: Tensor, positions: Tensor, layout: Layout) -> Iterator[Tensor]:  # noqa: ANN401
    """Yield the hidden states (T, D) of the embedding and of each layer.

    Args:
        model: a Hugging Face model that is `known`.
        ids: (T,) tokens of packed sentences, filler behind them.
        positions: (T,) their positions.
        layout: who attends to whom.
    """
    hidden = model.embeddings(input_ids=ids.unsqueeze(0), position_ids=positions.unsqueeze(0))[0]
    if hasattr(model, "embeddings_project"):  # ELECTRA
        hidden = model.embeddings_project(hidden)
    yield hidden
    biases = [bias.to(hidden.dtype) for bias in layout.biases]
    for layer in model.encoder.layer:
        attention = layer.attention
        mixed = _attend(attention.self, hidden, layout, biases)
        hidden = _add_and_norm(attention.output, mixed, hidden)
        hidden = _add_and_norm(layer.output, layer.intermediate.forward(hidden), hidden)
        yield hidden


def _attend(module: Any, hidden: Tensor, layout: Layout, biases: list[Tensor]) -> Tensor:  # noqa: ANN401
    heads = module.num_attention_heads
    q, k, v = (
        rows.unflatten(1, (heads, -1))  # (T, H, Dh)
        for rows in module.query.forward_with(hidden, (module.key, module.value))
    )
    return attend(q, k, v, layout, biases, module.scaling).reshape(hidden.shape)


def _add_and_norm(module: Any, values: Tensor, residual: Tensor) -> Tensor:  # noqa: ANN401
    total = module.dense.forward(values).add_(residual)
    norm = module.LayerNorm
    return nn.functional.layer_norm(total, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
