"""What makes vectors of a backbone: the settings stored in every model folder."""

from dataclasses import dataclass

from simcse.errors import ConfigError
from simcse.model.head import HEAD_POLICIES, HeadPolicy
from simcse.model.pooling import POOLINGS, Pooling
from simcse.postprocess import POSTPROCESS, Postprocess


@dataclass(frozen=True)
class ModelSettings:
    """How a backbone's hidden states become an embedding."""

    pooling: Pooling  # one of `POOLINGS`
    # When the projection head applies: never, in training only, or always.
    head: HeadPolicy = "none"
    max_length: int = 128  # token limit of a sentence, special tokens included
    normalize: bool = False  # whether embeddings are scaled to unit length
    # The layer fitted to the finished embeddings, before they are normalized.
    postprocess: Postprocess = "none"
    # Sizes at which the first dimensions alone were trained to be embeddings.
    matryoshka: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}")
        if self.head not in HEAD_POLICIES:
            raise ConfigError(f"head must be one of {', '.join(HEAD_POLICIES)}, got {self.head!r}")
        if self.postprocess not in POSTPROCESS:
            known = ", ".join(POSTPROCESS)
            raise ConfigError(f"postprocess must be one of {known}, got {self.postprocess!r}")
        if self.max_length < 3:  # two special tokens and one of the sentence
            raise ConfigError(f"max_length must be at least 3, got {self.max_length}")
