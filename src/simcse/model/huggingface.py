"""Hugging Face folders: configuration, weights and tokenizer, read strictly and written plainly."""

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from simcse.errors import ArtifactError
from simcse.io.checkpoints import WEIGHTS, refuse_unsafe, write_safetensors

# What transformers raises for a folder it cannot read; it has no exception tree of its own.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,  # config.json has a value of the wrong type
)


def read_backbone(folder: Path, *, with_pooler: bool = False) -> Any:  # noqa: ANN401 - HF has no common type
    """Load the Hugging Face encoder of a folder in fp32, on the CPU, in evaluation mode.

    Args:
        folder: holds the configuration and the weights as safetensors.
        with_pooler: keep BERT's pooler, whose weights are then required; else it is left out.

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
            ignore_mismatched_sizes=True,  # told by the report, which is read below
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
    config._attn_implementation = "eager"
    with contextlib.suppress(ValueError), torch.device("meta"):  # what transformers raises for it
        return AutoModelForMaskedLM.from_config(config)
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
    """Keep transformers' progress bar and load report off stderr; what is wrong we raise."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
