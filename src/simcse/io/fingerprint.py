"""Which model made some vectors: the fingerprint stored with everything that is made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simcse.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class ModelFingerprint:
    """What must agree before vectors of two sources may be compared."""

    name: str  # what the model was called when it was loaded; for people, it need not agree
    sha256: str  # SHA-256 of all that makes its embeddings, see `simcse.model.fingerprint`
    dimensions: int  # size of an embedding
    # The model's settings, to say what differs.
    settings: Mapping[str, Any] = field(default_factory=dict)

    def require(self, other: "ModelFingerprint", *, what: str, fix: str) -> None:
        """Refuse vectors of another model for ``what`` this fingerprint is on.

        Raises:
            ArtifactError: the fingerprints differ; the message says in which settings.
        """
        if self.sha256 == other.sha256:
            return
        names = sorted({*self.settings, *other.settings})
        differing = [
            f"{name} {self.settings.get(name)!r} there, {other.settings.get(name)!r} here"
            for name in names
            if self.settings.get(name) != other.settings.get(name)
        ]
        raise ArtifactError(
            f"{what} was made by the model {self.name!r} (fingerprint {self.sha256[:12]}), "
            f"not by {other.name!r} ({other.sha256[:12]}): "
            f"{'; '.join(differing) or 'other weights or another tokenizer'}. {fix}"
        )
