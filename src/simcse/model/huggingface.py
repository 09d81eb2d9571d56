"""Model names and Hugging Face folders: found by name, read strictly and written plainly."""

import contextlib
import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from simcse.errors import ArtifactError, ResourceError, UsageError
from simcse.io.benchmarks import shared_folder
from simcse.io.checkpoints import WEIGHTS, current_folder, refuse_unsafe, write_safetensors
from simcse.model.settings import ModelSettings

BUNDLED = ("mini",)

# Gao et al. 2021, section 6.3: the unsupervised models drop the head after training, the
# supervised keep it. The length limit is that of the project's SimCSE.encode.
_UNSUPERVISED = ModelSettings(pooling="cls", head="none", max_length=128)
_SUPERVISED = ModelSettings(pooling="cls", head="always", max_length=128)
_BASES = ("bert-base-uncased", "bert-large-uncased", "roberta-base", "roberta-large")
REFERENCE = {
    f"princeton-nlp/{variant}-simcse-{base}": settings
    for variant, settings in (("unsup", _UNSUPERVISED), ("sup", _SUPERVISED))
    for base in _BASES
}

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]  # never pickles; .model: SentencePiece
_HUB_OTHER = ["onnx/*", "openvino/*"]
# What transformers raises for a folder it cannot read; it has no exception tree of its own. The
# last one is for a value of the wrong type in config.json.
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)


def locate(name: str | Path) -> Path:
    """Return the folder a name stands for, downloading a hub id's files.

    A bundled name wins over a folder of the same name; write ``./mini`` for the folder. What is
    neither is searched in ``SIMCSE_MODELS``, or a ``shared/models`` beside the project.

    Raises:
        UsageError: the name stands for nothing; the message lists what was tried.
        ResourceError: the hub cannot be reached, or a bundled model is not installed.
    """
    if str(name) in BUNDLED:
        bundled = Path(str(resources.files("simcse"))) / "bundled" / str(name)
        if not bundled.is_dir():
            raise ResourceError(f"the bundled model {name!r} is not installed: no {bundled}")
        return bundled
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


def read_backbone(folder: Path, *, with_pooler: bool = False) -> Any:  # noqa: ANN401 - HF has no common type
    """Load the Hugging Face encoder of a folder in fp32, on the CPU, in evaluation mode.

    Args:
        folder: holds the configuration and the weights as safetensors.
        with_pooler: load BERT's pooler, whose weights are then required; else it is left out.

    Raises:
        ArtifactError: the folder is unsafe, damaged, or lacks weights.
    """
    refuse_unsafe(folder)
    with _reading(folder), _quiet():
        model, report = AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # in the report, which is read below
        )
    missing = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    missing = {name for name in missing if with_pooler or "pooler." not in name}
    if missing:
        names = ", ".join(sorted(missing)[:5])
        raise ArtifactError(f"{folder}: {len(missing)} weights are missing or misshapen: {names}")
    if not with_pooler and "add_pooling_layer" in inspect.signature(type(model)).parameters:
        model.pooler = None
    return model.eval()


def masked_model(config: Any) -> Any:  # noqa: ANN401 - HF has no common type
    """Return the masked-language model of an architecture, without weights; or ``None``."""
    config = copy.deepcopy(config)
    with contextlib.suppress(ValueError), torch.device("meta"):  # what transformers raises for it
        return AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
    return None


def read_tokenizer(folder: Path, model: Any) -> Any:  # noqa: ANN401 - HF has no common type
    """Load the tokenizer of a folder and check that the model has a row for each of its tokens.

    Raises:
        ArtifactError: the tokenizer is missing or damaged, or knows more tokens than the model.
    """
    with _reading(folder), _quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    rows = model.get_input_embeddings().num_embeddings
    if tokens > rows:
        raise ArtifactError(
            f"{folder}: the tokenizer has {tokens:,} tokens, the model only {rows:,} embedding rows"
        )
    return tokenizer


def write_backbone(
    model: Any,  # noqa: ANN401 - HF has no common type
    folder: Path,
    *,
    dtype: torch.dtype,
    all_layers: bool,
    further: Mapping[str, torch.Tensor] = MappingProxyType({}),
    architecture: str | None = None,
) -> None:
    """Write configuration and weights as `AutoModel.from_pretrained` reads them.

    Args:
        model: the Hugging Face encoder.
        folder: where to; it exists.
        dtype: number format of the stored weights.
        all_layers: whether the model, read by other tools, gives all hidden states.
        further: weights that the model's class has and this one was loaded without.
        architecture: the class instead, if it has this model inside and ``further`` around it.
    """
    config = copy.deepcopy(model.config)
    config.architectures = [architecture or type(model).__name__]
    config.dtype = dtype
    config.output_hidden_states = all_layers
    config.save_pretrained(folder)
    prefix = f"{model.base_model_prefix}." if architecture else ""
    tensors = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in {**model.state_dict(prefix=prefix), **further}.items()
    }
    write_safetensors(folder / WEIGHTS, tensors)


def write_tokenizer(tokenizer: Any, folder: Path) -> None:  # noqa: ANN401 - HF has no common type
    """Write a tokenizer without the truncation of its last call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        first_line = str(error).partition("\n")[0]
        raise ArtifactError(f"{folder} cannot be read by transformers: {first_line}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and load report; errors are raised anyway."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
