"""Model folders: everything that makes embeddings, read from a name and written to a folder."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

import simcse
from simcse import config
from simcse.errors import ArtifactError, ConfigError, ResourceError, SimcseError, UsageError
from simcse.io.checkpoints import (
    WEIGHTS,
    atomic_folder,
    check_checksums,
    checksums,
    read_json,
    read_safetensors,
)
from simcse.io.files import write_text
from simcse.model import huggingface, modules
from simcse.model.backbone import Backbone
from simcse.model.head import ProjectionHead, head_from, read_head, write_head
from simcse.model.mlm import MlmHead
from simcse.model.names import REFERENCE, locate
from simcse.model.precision import DTYPES, Precision, choose_precision
from simcse.model.settings import ModelSettings
from simcse.model.token_weights import TokenWeights
from simcse.postprocess import Layer
from simcse.text import Tokenizer

OWN = "simcse.json"
HEAD = "head.safetensors"  # a head for training only, kept so that training can go on
FORMAT = 1
_REFERENCE_HEAD = "mlp.dense."
StoredDtype = Literal["fp32", "fp16"]
STORED_DTYPES: dict[StoredDtype, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class ModelParts:
    """What a model folder holds.

    Attributes:
        backbone: the transformer.
        tokenizer: cuts at the settings' length limit.
        settings: how hidden states become an embedding.
        head: the projection head, where its weights are known.
        provenance: where the weights come from.
        postprocess: the layer fitted to the finished embeddings.
        mlm_head: the masked-language-model head, only to be written; `read_mlm_head` reads it.
        token_weights: what tokens count in a mean.
    """

    backbone: Backbone
    tokenizer: Tokenizer
    settings: ModelSettings
    head: ProjectionHead | None
    provenance: dict[str, Any]
    postprocess: Layer | None = None
    mlm_head: MlmHead | None = None
    token_weights: TokenWeights | None = None


def read_model(
    name_or_folder: str | Path,
    *,
    device: str | None = None,
    precision: Precision = "auto",
    settings: ModelSettings | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ModelParts:
    """Read a model: a bundled name, a folder or a hub id.

    A folder written here, a sentence-transformers folder and the released SimCSE models say
    themselves how they embed. For any other the caller must; nothing is guessed.

    Args:
        name_or_folder: a name as `simcse.model.names.locate` takes it.
        device: where the weights go; ``None`` is CUDA where there is one, else the CPU.
        precision: what the backbone runs in.
        settings: replace what the folder says. Then only a folder written here gives its head.
        changes: single settings by name, laid over what the folder says; with a pooling among
            them they are enough for a folder that says nothing.

    Raises:
        UsageError: the name stands for nothing, or the folder does not say how it embeds.
        ArtifactError: the folder is damaged, unsafe, or does what our settings cannot say.
        ConfigError: the length limit is above the backbone's number of positions.
        ResourceError: the hub cannot be reached, or there is no such device.
    """
    target = _choose_device(device)
    while True:
        folder = locate(name_or_folder)
        state = _state(folder)
        try:
            parts = _read_folder(folder, str(name_or_folder), settings, changes or {})
            break
        except (SimcseError, OSError):
            if _state(folder) == state:
                raise  # otherwise training replaced the folder meanwhile: read the new one
    chosen = choose_precision(precision, target, width=parts.backbone.width)
    parts.backbone.to(target).set_compute(DTYPES[chosen])
    if parts.head is not None:
        parts.head.to(target)
    return parts


def write_model(parts: ModelParts, folder: Path, *, dtype: StoredDtype = "fp32") -> None:
    """Write a folder that sentence-transformers and transformers read, too.

    A folder already there is replaced as a whole; a reader finds the old or the new one. The
    weights are written as they are held: a backbone run in bf16 has lost its fp32 weights.

    Raises:
        ResourceError: the disk is full or read-only.
        UsageError: the head always applies and there is none.
    """
    if parts.settings.head == "always" and parts.head is None:
        raise UsageError("the projection head always applies, but there is none to write")
    if (parts.settings.postprocess == "none") is not (parts.postprocess is None):
        raise UsageError(f"postprocess is {parts.settings.postprocess}, the layer does not fit it")
    stored, further, architecture = STORED_DTYPES[dtype], dict[str, torch.Tensor](), None
    if parts.mlm_head is not None:
        further, architecture = parts.mlm_head.for_checkpoint(parts.backbone.model)
    with atomic_folder(folder) as new:
        huggingface.write_backbone(
            parts.backbone.model,
            new,
            dtype=stored,
            all_layers=modules.needs_all_layers(parts.settings),
            further=further,
            architecture=architecture,
        )
        huggingface.write_tokenizer(parts.tokenizer.hf_tokenizer, new)
        layers = (parts.head, parts.postprocess, parts.token_weights)
        modules.write_modules(
            new, parts.settings, parts.backbone, *layers, parts.tokenizer.hf_tokenizer, dtype=stored
        )
        if parts.settings.head == "train_only" and parts.head is not None:
            write_head(new / HEAD, parts.head, stored)
        write_text(new / OWN, json.dumps(_own(parts, new), indent=2) + "\n")


def _read_folder(
    folder: Path, name: str, settings: ModelSettings | None, changes: Mapping[str, Any]
) -> ModelParts:
    source = {"source": name}
    if (folder / OWN).exists():
        parts = _read_own(folder, settings)
    elif settings is not None:
        parts = _join(*_open(folder), settings, None, source)
    elif name in REFERENCE:
        parts = _read_reference(folder, REFERENCE[name], source)
    elif (folder / modules.MODULES).exists():
        parts = _read_modules(folder, source)
    elif "pooling" in changes:
        backbone, tokenizer = _open(folder)
        stated = ModelSettings(**changes)
        found = None if stated.head == "none" else stored_head(folder)
        head = None if found is None else head_from(folder / WEIGHTS, found, backbone.width)
        parts = _join(backbone, tokenizer, stated, head, source)
    else:
        raise UsageError(
            f"{name} does not say how its hidden states become an embedding; pass --pooling mean, "
            "in training model.pooling=mean, in Python settings=ModelSettings(pooling='mean')"
        )
    changed = dataclasses.replace(parts.settings, **changes)
    limit = parts.backbone.max_positions
    if limit is not None and changed.max_length > limit:
        raise ConfigError(f"max_length is {changed.max_length}, the backbone has {limit} positions")
    head = None if changed.head == "none" else parts.head
    layer = None if changed.postprocess == "none" else parts.postprocess
    wanted = changed.postprocess
    if wanted != "none" and (layer is None or wanted != parts.settings.postprocess):
        raise UsageError(f"{name} has no post-processing {wanted!r} to apply")
    made = (parts.provenance, layer, parts.token_weights)
    return _join(parts.backbone, parts.tokenizer.hf_tokenizer, changed, head, *made)


def stored_head(folder: Path) -> dict[str, torch.Tensor] | None:
    """Return the projection head of a checkpoint of the 2021 code; ``None`` for another folder.

    That code stores its head beside the backbone, as ``mlp.dense``, and does not say whether it
    applies when sentences are encoded.
    """
    if not (folder / WEIGHTS).is_file():
        return None
    tensors = read_safetensors(folder / WEIGHTS, prefix=_REFERENCE_HEAD)
    return {f"linear.{name}": tensor for name, tensor in tensors.items()} or None


def _read_own(folder: Path, settings: ModelSettings | None) -> ModelParts:
    own = read_json(folder / OWN)
    if own.get("format") != FORMAT:
        found = own.get("format")
        raise ArtifactError(f"{folder / OWN}: expected format {FORMAT}, got {found!r}")
    try:
        stored = config.build(ModelSettings, own["settings"], section="settings.")
        check_checksums(folder, own["sha256"])
        provenance = dict(own["provenance"])
    except (ConfigError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder / OWN} is damaged: {error!r}") from error
    backbone, tokenizer = _open(folder)
    settings = settings or stored
    head = None
    if settings.head != "none" and stored.head == "always":
        head = modules.read_dense(modules.read_layout(folder)["Dense"], backbone.width)
    elif settings.head != "none" and (folder / HEAD).exists():
        head = read_head(folder / HEAD, backbone.width)
    layer = None
    if settings.postprocess == stored.postprocess != "none":
        layer = modules.read_postprocess(modules.read_layout(folder), backbone.width)
    weights = modules.read_weighting(folder, tokenizer)
    if read_json(folder / OWN) != own:
        raise ArtifactError(f"{folder} was replaced while it was read")
    return _join(backbone, tokenizer, settings, head, provenance, layer, weights)


def _read_modules(folder: Path, provenance: dict[str, Any]) -> ModelParts:
    """Read a sentence-transformers folder."""
    layout = modules.read_layout(folder)
    backbone, tokenizer = _open(layout["Transformer"])
    settings = modules.read_modules(folder, backbone, tokenizer)
    head = modules.read_dense(layout["Dense"], backbone.width) if "Dense" in layout else None
    layer = modules.read_postprocess(layout, backbone.width)
    weights = modules.read_weighting(folder, tokenizer)
    return _join(backbone, tokenizer, settings, head, provenance, layer, weights)


def _read_reference(
    folder: Path, settings: ModelSettings, provenance: dict[str, Any]
) -> ModelParts:
    """Read a released SimCSE model, whose projection head is stored as BERT's pooler."""
    backbone, tokenizer = _open(folder, with_pooler=settings.head != "none")
    head = None
    if settings.head != "none":
        head = ProjectionHead(backbone.width)
        head.dense.load_state_dict(backbone.model.pooler.dense.state_dict())
        backbone.model.pooler = None
    return _join(backbone, tokenizer, settings, head, provenance)


def _open(folder: Path, *, with_pooler: bool = False) -> tuple[Backbone, Any]:
    """Return the backbone and the Hugging Face tokenizer of a folder."""
    model = huggingface.read_backbone(folder, with_pooler=with_pooler)
    return Backbone(model), huggingface.read_tokenizer(folder, model)


def _join(
    backbone: Backbone,
    tokenizer: Any,  # noqa: ANN401 - HF has no common type
    settings: ModelSettings,
    head: ProjectionHead | None,
    provenance: dict[str, Any],
    postprocess: Layer | None = None,
    token_weights: TokenWeights | None = None,
) -> ModelParts:
    cutting = Tokenizer(tokenizer, max_length=settings.max_length)
    return ModelParts(
        backbone,
        cutting,
        settings,
        head,
        provenance,
        postprocess,
        token_weights=token_weights,
    )


def _own(parts: ModelParts, folder: Path) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    return {
        "format": FORMAT,
        "settings": dataclasses.asdict(parts.settings),
        "provenance": parts.provenance,
        "versions": {"simcse": simcse.__version__, **versions},
        "sha256": checksums(folder),
    }


def _choose_device(device: str | None) -> torch.device:
    """Resolve ``None`` and refuse a device that is not there.

    Raises:
        UsageError: ``device`` is no device name.
        ResourceError: it is CUDA and there is none.
    """
    try:
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"device {device!r}: expected cpu, cuda or cuda:N") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError(f"device {device!r}: torch finds no CUDA device here")
    return target


def _state(folder: Path) -> tuple[int, int] | None:
    """What changes when another folder takes this one's place."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
