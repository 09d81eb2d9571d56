"""One model from several: the mean of their weights."""

from collections.abc import Sequence

import torch

from simcse.errors import UsageError
from simcse.model.encoder import SentenceEncoder
from simcse.model.fingerprint import tokenizer_state


@torch.no_grad()
def average_encoders(encoders: Sequence[SentenceEncoder]) -> SentenceEncoder:
    """Average the weights of models trained from one start (Wortsman et al. 2022, model soups).

    Args:
        encoders: two or more in fp32; the first is changed in place and returned.

    Raises:
        UsageError: they differ in settings, tokenizer or shapes, or have post-processing, which
            fits only the weights it was fitted to.
    """
    first, *others = encoders
    if not others:
        raise UsageError("averaging needs at least two models")
    states = [encoder.state_dict() for encoder in encoders]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    for other, other_shapes in zip(others, shapes[1:], strict=True):
        if other.settings != first.settings or first.postprocess is not None:
            raise UsageError(
                "averaging needs models of equal settings without post-processing, got "
                f"{first.settings} and {other.settings}"
            )
        if other_shapes != shapes[0]:
            raise UsageError("the models differ in the names or shapes of their weights")
        if tokenizer_state(other) != tokenizer_state(first):
            raise UsageError("the models differ in their tokenizers")
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([each[name] for each in states]).mean(0))
    first.provenance = {"average of": [encoder.provenance for encoder in encoders]}
    return first
