"""Small random models of transformers, and their own hidden states, one sentence at a time."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}


def make_model(config: Any) -> nn.Module:
    torch.manual_seed(0)
    model = AutoModel.from_config(copy.deepcopy(config)).eval()
    for parameter in model.parameters():  # norms and biases start at 1 and 0, which hides mistakes
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=parameter.detach().mean().item(), std=0.1)
    return model


@torch.no_grad()
def plain_states(model: nn.Module, ids: list[int]) -> list[Tensor]:
    """Hidden states (L, D) of all layers, from a model that never met our code."""
    output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return [state[0] for state in output.hidden_states]
