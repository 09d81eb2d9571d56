"""Model names: bundled, stored, a folder or a hub id, and what the reference project's ids mean."""

import re
from importlib import resources
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from simcse.errors import ResourceError, UsageError
from simcse.io.benchmarks import shared_folder
from simcse.io.checkpoints import current_folder
from simcse.model.settings import ModelSettings

BUNDLED = ("mini",)

# Gao et al. 2021, section 6.3: the unsupervised models drop the head after training, the
# supervised keep it. The length limit is that of the project's SimCSE.encode.
_UNSUPERVISED = ModelSettings(pooling="cls", head="none", max_length=128)
_SUPERVISED = ModelSettings(pooling="cls", head="always", max_length=128)
_BASES = ("bert-base-uncased", "bert-large-uncased", "roberta-base", "roberta-large")
REFERENCE = {
    f"princeton-nlp/{kind}-simcse-{base}": settings
    for kind, settings in (("unsup", _UNSUPERVISED), ("sup", _SUPERVISED))
    for base in _BASES
}

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]  # never pickles; .model: SentencePiece
_HUB_OTHER = ["onnx/*", "openvino/*"]


def locate(name: str | Path) -> Path:
    """Return the folder a name stands for, downloading a hub id's files.

    A bundled name wins over a folder of the same name; write ``./mini`` for the folder. What is
    neither is looked for in ``SIMCSE_MODELS``, or a ``shared/models`` beside the project.

    Raises:
        UsageError: the name stands for nothing; the message lists what was tried.
        ResourceError: the hub cannot be reached, or a bundled model is not installed.
    """
    if str(name) in BUNDLED:
        return _bundled(str(name))
    folder = current_folder(Path(name).expanduser())
    if folder.is_dir():
        return folder
    tried = f"the bundled names ({', '.join(BUNDLED)}) and {folder.absolute()}"
    if str(name) == Path(name).name and (store := shared_folder("models")):
        stored = current_folder(store / name)
        if stored.is_dir():
            return stored
        tried += f", then {stored.absolute()}"
    if isinstance(name, str) and _HUB_ID.fullmatch(name):
        return _download(name)
    raise UsageError(f"no model {str(name)!r}: tried {tried}; a hub id has the form owner/name")


def _bundled(name: str) -> Path:
    folder = Path(str(resources.files("simcse"))) / "bundled" / name
    if not folder.is_dir():
        raise ResourceError(f"the bundled model {name!r} is not in this installation: no {folder}")
    return folder


def _download(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_OTHER))
    except RepositoryNotFoundError as error:
        raise UsageError(f"no model {name!r}: no such folder, and the hub has none") from error
    except (HfHubHTTPError, OSError) as error:
        raise ResourceError(
            f"no folder {name!r}, and it could not be fetched from the hub: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
