"""Sentence embeddings as a scikit-learn transformer (``pip install 'simcse-next[sklearn]'``)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

if TYPE_CHECKING:
    from simcse.model.encoder import SentenceEncoder


class SimcseEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Turns sentences into embeddings (N, D), for use in a ``Pipeline``.

    Nothing is learned: ``fit`` only loads the model, and ``transform`` without it does so, too. A
    pickled or cloned embedder carries the model's name, not its weights.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> texts, labels = ["a match", "a goal", "a share", "a bank"], [1, 1, 0, 0]
        >>> pipeline = make_pipeline(SimcseEmbedder(), LogisticRegression())
        >>> pipeline.fit(texts, labels).predict(["a striker"])  # doctest: +SKIP
        array([1])

    Attributes:
        model: a bundled name, a folder or a hub id.
        dimensions: size to truncate embeddings to, where the model was trained for it.
        precision: "auto", "fp32", "bf16" or "int8".
        device: "cpu", "cuda" ...; ``None`` takes the best.
        truncation: what to do with a sentence over the length limit: "error", "warn" or "truncate".
    """

    def __init__(
        self,
        model: str = "mini",
        *,
        dimensions: int | None = None,
        precision: str = "auto",
        device: str | None = None,
        truncation: str = "warn",
    ) -> None:
        self.model = model
        self.dimensions = dimensions
        self.precision = precision
        self.device = device
        self.truncation = truncation

    def fit(self, X: Sequence[str], y: object = None) -> "SimcseEmbedder":  # noqa: N803, ARG002 - scikit-learn's names
        """Check the sentences and load the model."""
        _checked(X)
        self._load()
        return self

    def transform(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        """Embed sentences: N -> (N, D) float32.

        Raises:
            ValueError: they are one string, or not strings.
            UsageError: there is no such model, or it has no such ``dimensions``.
        """
        texts = _checked(X)
        encoder = self._load()
        return encoder.encode(texts, truncation=self.truncation, dimensions=self.dimensions)  # type: ignore[arg-type]

    @property
    def _n_features_out(self) -> int:
        return self.dimensions or self._load().dimensions

    def _load(self) -> "SentenceEncoder":
        """Return the encoder of the current parameters, loaded once."""
        wanted = (self.model, self.precision, self.device)
        loaded = self.__dict__.get("_loaded")
        if loaded is None or loaded[0] != wanted:
            from simcse.model.encoder import SentenceEncoder

            encoder = SentenceEncoder.load(
                self.model,
                device=self.device,
                precision=self.precision,  # type: ignore[arg-type]  # checked there
            )
            loaded = self._loaded = (wanted, encoder)
        encoder_: SentenceEncoder = loaded[1]
        return encoder_

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_loaded"}

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn's own class
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _checked(given: object) -> list[str]:
    """Return sentences as a list, if they are strings."""
    if isinstance(given, str):
        raise ValueError("expected a list of sentences, got one string; pass [sentence]")
    texts = list(given)  # type: ignore[call-overload]  # raises TypeError if it is not iterable
    wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        found = type(texts[wrong]).__name__
        raise ValueError(f"expected sentences, got {found} at position {wrong}: {texts[wrong]!r}")
    return [str(text) for text in texts]
