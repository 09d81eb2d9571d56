"""The folder format of sentence-transformers, read and written; what it adds to ours is rejected.

Its `modules.json` lists the steps from sentence to embedding. Ours are some of these, in order:
Transformer, WeightedLayerPooling, WordWeights (token weights), Pooling, Dense (the head, with
tanh), Dense (post-processing, without), Normalize. A flow is none of its modules: it is listed
under our own name, so that sentence-transformers rejects the folder and does not embed without it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from torch import Tensor

from simcse.errors import ArtifactError
from simcse.io.checkpoints import (
    WEIGHTS,
    read_json,
    read_json_list,
    read_safetensors,
    write_safetensors,
)
from simcse.io.files import write_text
from simcse.model.backbone import Backbone
from simcse.model.head import ProjectionHead, read_head, write_head
from simcse.model.pooling import POOLINGS, SPECS, Pooling, mean_pool
from simcse.model.settings import ModelSettings
from simcse.model.token_weights import TokenWeights, read_token_weights, write_token_weights
from simcse.postprocess import Affine, Flow, Layer, Postprocess

LayerType = TypeVar("LayerType", Affine, Flow)
MODULES = "modules.json"
_TRANSFORMER_CONFIG = "sentence_bert_config.json"
_MODEL_CONFIG = "config_sentence_transformers.json"
_ORDER = (
    *("Transformer", "WeightedLayerPooling", "WordWeights", "Pooling"),
    *("Dense", "Affine", "Flow", "Normalize"),
)
# `sentence_transformers.models` is what every version since 0.3 reads.
_NAMESPACE = "sentence_transformers.models"
_TYPES = {"Affine": f"{_NAMESPACE}.Dense", "Flow": "simcse.postprocess.Flow"}
_TANH = "torch.nn.modules.activation.Tanh"
_IDENTITY = "torch.nn.modules.linear.Identity"

# The value a setting must have, where it is given, for our forward pass to be theirs.
_TRANSFORMER_EXPECTED = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
}
_NORMALIZE_EXPECTED = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
_DENSE_EXPECTED = {**_NORMALIZE_EXPECTED, "bias": True, "use_residual": False}
_LEGACY_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


# Reading


def read_layout(folder: Path) -> dict[str, Path]:
    """Return the folder of each module by its name in `_ORDER`, in the order they run.

    Raises:
        ArtifactError: a module is unknown to us, out of order or outside ``folder``.
    """
    layout: dict[str, Path] = {}
    order = iter(_ORDER)
    for module in read_json_list(folder / MODULES):
        module_type, path = str(module.get("type", "")), str(module.get("path", ""))
        name = _module_name(module_type, folder / path)
        if name not in order:
            raise ArtifactError(
                f"{folder / MODULES}: module {module_type!r} is not supported here; supported, in "
                f"this order: {', '.join(_ORDER)} (Affine is a Dense without activation)"
            )
        if ".." in Path(path).parts or Path(path).is_absolute():
            raise ArtifactError(
                f"{folder / MODULES}: module {module_type!r} is outside the folder: {path}"
            )
        layout[name] = folder / path
    if not {"Transformer", "Pooling"} <= layout.keys():
        raise ArtifactError(f"{folder / MODULES}: expected a Transformer and a Pooling module")
    return layout


def _module_name(module_type: str, folder: Path) -> str:
    """Return the name in `_ORDER` of a module's class; a Dense without activation is Affine."""
    package, _, name = module_type.rpartition(".")
    if module_type == _TYPES["Flow"]:
        return "Flow"
    if not package.startswith("sentence_transformers.") or name in _TYPES:
        return "unknown"
    linear = name == "Dense" and _read(folder / "config.json").get("activation_function")
    return "Affine" if linear == _IDENTITY else name


def read_modules(folder: Path, backbone: Backbone, tokenizer: Any) -> ModelSettings:  # noqa: ANN401
    """Read how the modules of a folder make embeddings of its backbone.

    Raises:
        ArtifactError: they do what our settings cannot say; the message names the module.
    """
    layout = read_layout(folder)
    _check_model(folder)
    if "Normalize" in layout:
        _check(layout["Normalize"] / "config.json", _NORMALIZE_EXPECTED)
    # A folder does not say what its layer was fitted as.
    layer: Postprocess = "linear" if "Affine" in layout else "none"
    return ModelSettings(
        pooling=_read_pooling(layout, backbone),
        head="always" if "Dense" in layout else "none",
        max_length=_read_max_length(layout["Transformer"], backbone, tokenizer),
        normalize="Normalize" in layout,
        postprocess="flow" if "Flow" in layout else layer,
    )


def read_layers(
    folder: Path,
    width: int,
    tokenizer: Any,  # noqa: ANN401 - HF has no common type
    *,
    head: bool = True,
    postprocess: bool = True,
) -> tuple[ProjectionHead | None, Layer | None, TokenWeights | None]:
    """Read the projection head, the post-processing layer and the token weights of a folder.

    ``head`` and ``postprocess`` say whether these are read.

    Raises:
        ArtifactError: a file is damaged, has other widths or another activation, or there are two
            post-processing layers.
    """
    layout = read_layout(folder)
    if postprocess and {"Affine", "Flow"} <= layout.keys():
        raise ArtifactError(f"{layout['Flow']}: one post-processing layer is supported, not two")
    layer: Layer | None = None
    if postprocess and "Flow" in layout:
        layer = _read_flow(layout["Flow"], width)
    elif postprocess and "Affine" in layout:
        layer = _read_affine(layout["Affine"], width)
    weights = layout.get("WordWeights")
    return (
        _read_dense(layout["Dense"], width) if head and "Dense" in layout else None,
        layer,
        None if weights is None else read_token_weights(weights, tokenizer),
    )


def _read_dense(folder: Path, width: int) -> ProjectionHead:
    widths = {"in_features": width, "out_features": width}
    _check(folder / "config.json", {**_DENSE_EXPECTED, "activation_function": _TANH, **widths})
    return read_head(folder / WEIGHTS, width)


def _read_flow(folder: Path, width: int) -> Flow:
    stored = read_json(folder / "config.json")
    try:
        flow = Flow(width, steps=int(stored["steps"]), hidden=int(stored["hidden"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder} is damaged: {error!r}") from error
    return _load_weights(flow, folder)


def _read_affine(folder: Path, width: int) -> Affine:
    path = folder / "config.json"
    _check(path, {**_DENSE_EXPECTED, "activation_function": _IDENTITY, "in_features": width})
    dimensions = read_json(path).get("out_features")
    if not isinstance(dimensions, int) or dimensions < 1:
        raise ArtifactError(f"{path}: expected out_features above 0, got {dimensions!r}")
    return _load_weights(Affine(width, dimensions), folder)


def _load_weights(layer: LayerType, folder: Path) -> LayerType:
    tensors = read_safetensors(folder / WEIGHTS)
    try:
        layer.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactError(f"{folder / WEIGHTS} does not fit: {error}") from error
    return layer


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not there is an empty one."""
    return read_json(path) if path.exists() else {}


def _check(path: Path, expected: Mapping[str, object]) -> None:
    """Reject a module's settings, where the file has them, that are not the expected ones."""
    found = _read(path)
    for name, value in expected.items():
        if name in found and found[name] != value and found[name] is not None:
            raise ArtifactError(f"{path}: {name} is {found[name]!r}, only {value!r} is supported")


def _check_model(folder: Path) -> None:
    """Reject settings of the whole model that change embeddings in ways ours cannot say."""
    path = folder / _MODEL_CONFIG
    _check(path, {"model_type": "SentenceTransformer", "truncate_dim": None})
    found = _read(path)
    prompt = found.get("default_prompt_name")
    if prompt and found.get("prompts", {}).get(prompt):
        raise ArtifactError(f"{path}: the default prompt {prompt!r} is not supported")


def _read_pooling(layout: Mapping[str, Path], backbone: Backbone) -> Pooling:
    path = layout["Pooling"] / "config.json"
    found = read_json(path)
    mode = found.get("pooling_mode", _legacy_mode(found))
    mode = mode[0] if isinstance(mode, list) and len(mode) == 1 else mode
    if mode not in ("cls", "mean"):
        raise ArtifactError(f"{path}: pooling {mode!r} is not supported, only 'cls' and 'mean'")
    if "WeightedLayerPooling" not in layout:
        return "cls" if mode == "cls" else "mean"
    pooling = _read_layers(layout["WeightedLayerPooling"], backbone)
    if mode != "mean":
        raise ArtifactError(f"{path}: pooling {mode!r} of several layers is not supported")
    return pooling


def _legacy_mode(found: Mapping[str, Any]) -> str | list[str]:
    """Return the modes switched on by the flags used before version 5.4; none means mean."""
    flags = [name for name, on in found.items() if name.startswith("pooling_mode_") and on is True]
    return [_LEGACY_MODES.get(name, name) for name in flags] or "mean"


def _read_layers(folder: Path, backbone: Backbone) -> Pooling:
    """Find the pooling whose layers are weighted as a WeightedLayerPooling module does."""
    if not backbone.model.config.output_hidden_states:
        raise ArtifactError(f"{folder}: the Transformer does not give the layers it weights")
    start = int(read_json(folder / "config.json").get("layer_start", 4))
    weights = read_safetensors(folder / WEIGHTS).get("layer_weights")
    if weights is not None and len(weights) + start == backbone.layer_count + 1:
        full = torch.cat([torch.zeros(start), weights.float()])
        for pooling in POOLINGS:
            wanted = _layer_weights(pooling, backbone.layer_count)
            if SPECS[pooling].reduce is mean_pool and torch.allclose(full / full.sum(), wanted):
                return pooling
    raise ArtifactError(f"{folder}: no supported pooling has its layer weights: {weights}")


def _layer_weights(pooling: Pooling, layer_count: int) -> Tensor:
    """Weights of the embedding layer and all layers: (layer_count + 1,), sum 1."""
    weights = torch.zeros(layer_count + 1)
    for layer in SPECS[pooling].layers:
        weights[layer] += 1 / len(SPECS[pooling].layers)
    return weights


def _read_max_length(folder: Path, backbone: Backbone, tokenizer: Any) -> int:  # noqa: ANN401
    """Return the stated length limit, else the tokenizer's within the backbone's positions."""
    path = folder / _TRANSFORMER_CONFIG
    found = _read(path)
    _check(path, _TRANSFORMER_EXPECTED)
    if found.get("do_lower_case") and tokenizer.tokenize("A") != tokenizer.tokenize("a"):
        raise ArtifactError(f"{path}: do_lower_case is not supported with a cased tokenizer")
    known = {"max_seq_length", "do_lower_case", "unpad_inputs", *_TRANSFORMER_EXPECTED}
    other = sorted(name for name, value in found.items() if name not in known and value)
    if other:
        raise ArtifactError(f"{path}: not supported: {', '.join(other)}")
    if found.get("max_seq_length"):
        return int(found["max_seq_length"])
    limits = (tokenizer.model_max_length, backbone.max_positions)
    return int(min(limit for limit in limits if limit is not None))


# Writing


def write_modules(
    folder: Path,
    settings: ModelSettings,
    backbone: Backbone,
    head: ProjectionHead | None,
    postprocess: Layer | None,
    token_weights: TokenWeights | None,
    tokenizer: Any,  # noqa: ANN401 - HF has no common type
    *,
    dtype: torch.dtype,
) -> None:
    """Write the files that make a Hugging Face folder a sentence-transformers folder.

    Post-processing stays in fp32: it divides by small deviations.
    """
    layer_name = "Flow" if isinstance(postprocess, Flow) else "Affine"
    used = {
        "Transformer": True,
        "WeightedLayerPooling": needs_all_layers(settings),
        "WordWeights": token_weights is not None,
        "Pooling": True,
        "Dense": settings.head == "always",
        layer_name: postprocess is not None,
        "Normalize": settings.normalize,
    }
    names = [name for name, is_used in used.items() if is_used]
    paths = {name: f"{i}_{name}" if i else "" for i, name in enumerate(names)}
    for path in paths.values():
        (folder / path).mkdir(exist_ok=True)
    types = [_TYPES.get(name, f"{_NAMESPACE}.{name}") for name in names]
    listed = [
        {"idx": i, "name": str(i), "path": paths[name], "type": types[i]}
        for i, name in enumerate(names)
    ]
    _write_json(folder / MODULES, listed)
    versions = {"transformers": transformers.__version__, "pytorch": str(torch.__version__)}
    about = {
        "model_type": "SentenceTransformer",
        "__version__": versions,
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    _write_json(folder / _MODEL_CONFIG, about)
    _write_json(folder / _TRANSFORMER_CONFIG, {"max_seq_length": settings.max_length})
    _write_pooling(folder / paths["Pooling"], settings.pooling, backbone.width)
    if "WeightedLayerPooling" in paths:
        _write_layers(folder / paths["WeightedLayerPooling"], settings.pooling, backbone)
    if token_weights is not None:
        write_token_weights(folder / paths["WordWeights"], token_weights, tokenizer)
    if head is not None and "Dense" in paths:
        _write_dense_config(folder / paths["Dense"], backbone.width, backbone.width, _TANH)
        write_head(folder / paths["Dense"] / WEIGHTS, head, dtype)
    if postprocess is not None:
        _write_postprocess(folder / paths[layer_name], postprocess)


def needs_all_layers(settings: ModelSettings) -> bool:
    """Whether sentence-transformers needs all hidden states for this pooling."""
    return len(SPECS[settings.pooling].layers) > 1


def _write_pooling(folder: Path, pooling: Pooling, width: int) -> None:
    """Write a Pooling module, with the flags that versions before 5.4 read."""
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    used = "cls_token" if pooling == "cls" else "mean_tokens"
    flags = {f"pooling_mode_{mode}": mode == used for mode in modes}
    _write_json(folder / "config.json", {"word_embedding_dimension": width, **flags})


def _write_layers(folder: Path, pooling: Pooling, backbone: Backbone) -> None:
    layers = backbone.layer_count
    written = {"word_embedding_dimension": backbone.width, "layer_start": 0}
    _write_json(folder / "config.json", {**written, "num_hidden_layers": layers})
    write_safetensors(folder / WEIGHTS, {"layer_weights": _layer_weights(pooling, layers)})


def _write_postprocess(folder: Path, layer: Layer) -> None:
    if isinstance(layer, Flow):
        written = {"steps": len(layer.steps), "hidden": layer.hidden}
        _write_json(folder / "config.json", written)
    else:
        _write_dense_config(folder, layer.linear.in_features, layer.dimensions, _IDENTITY)
    write_safetensors(folder / WEIGHTS, layer.state_dict())


def _write_dense_config(folder: Path, width: int, dimensions: int, activation: str) -> None:
    written = {
        "in_features": width,
        "out_features": dimensions,
        "bias": True,
        "activation_function": activation,
    }
    _write_json(folder / "config.json", written)


def _write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
