"""Model folders: everything that makes embeddings, read from a name and written to a folder."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from simcse.model.encoder import SentenceEncoder
from simcse.model.head import ProjectionHead, head_from, read_head, write_head
from simcse.model.huggingface import REFERENCE, locate
from simcse.model.precision import DTYPES, EncodingPrecision, choose_precision
from simcse.model.settings import ModelSettings
from simcse.model.token_weights import TokenWeights
from simcse.postprocess import Layer
from simcse.text import Tokenizer

OWN = "simcse.json"
HEAD = "head.safetensors"  # a head for training only, stored so that training can go on
FORMAT = 1
_REFERENCE_HEAD = "mlp.dense."
StoredDtype = Literal["fp32", "fp16"]
STORED_DTYPES: dict[StoredDtype, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass
class _Stored:
    """What a folder holds, before changed settings are applied."""

    backbone: Backbone
    hf_tokenizer: Any
    settings: ModelSettings
    head: ProjectionHead | None = None
    postprocess: Layer | None = None
    token_weights: TokenWeights | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def read_model(
    name_or_folder: str | Path,
    *,
    device: str | None = None,
    precision: EncodingPrecision = "auto",
    settings: ModelSettings | None = None,
    changes: Mapping[str, Any] | None = None,
) -> SentenceEncoder:
    """Read a model: a bundled name, a folder or a hub id.

    A folder written here, a sentence-transformers folder and the released SimCSE models say
    themselves how they embed. For any other the caller must; nothing is guessed.

    Args:
        name_or_folder: a name as `simcse.model.huggingface.locate` takes it.
        device: where the weights go; ``None`` is CUDA where there is one, else the CPU.
        precision: number format that the backbone runs in.
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
            encoder = _read_folder(folder, str(name_or_folder), settings, changes or {})
            break
        except (SimcseError, OSError):
            if _state(folder) == state:
                raise  # otherwise training replaced the folder meanwhile: read the new one
    encoder.to(target)
    weights = "fp32" if precision == "int8" else precision  # int8 is made of fp32 weights
    chosen = choose_precision(weights, target, width=encoder.backbone.width)
    encoder.backbone.set_compute(DTYPES[chosen])
    if precision == "int8":
        encoder.set_precision(precision)
    return encoder


def write_model(encoder: SentenceEncoder, folder: Path, *, dtype: StoredDtype = "fp32") -> None:
    """Write a folder that sentence-transformers and transformers read, too.

    A folder already there is replaced as a whole; a reader finds the old or the new one. The
    weights are written as they are in memory: a backbone run in bf16 has lost its fp32 weights.

    Raises:
        UsageError: the settings name a head or layer that the encoder does not have.
        ResourceError: the disk is full or read-only.
    """
    settings, head, hf_tokenizer = encoder.settings, encoder.head, encoder.tokenizer.hf_tokenizer
    if settings.head == "always" and head is None:
        raise UsageError("the projection head always applies, but there is none to write")
    if (settings.postprocess == "none") is not (encoder.postprocess is None):
        found = "no layer" if encoder.postprocess is None else "a layer"
        raise UsageError(f"postprocess is {settings.postprocess}, but the encoder has {found}")
    stored, further, architecture = STORED_DTYPES[dtype], dict[str, torch.Tensor](), None
    if encoder.mlm_head is not None:
        further, architecture = encoder.mlm_head.for_checkpoint(encoder.backbone.model)
    with atomic_folder(folder) as new:
        huggingface.write_backbone(
            encoder.backbone.model,
            new,
            dtype=stored,
            all_layers=modules.needs_all_layers(settings),
            further=further,
            architecture=architecture,
        )
        huggingface.write_tokenizer(hf_tokenizer, new)
        layers = (head, encoder.postprocess, encoder.token_weights)
        modules.write_modules(new, settings, encoder.backbone, *layers, hf_tokenizer, dtype=stored)
        if settings.head == "train_only" and head is not None:
            write_head(new / HEAD, head, stored)
        versions = {name: metadata.version(name) for name in ("torch", "transformers")}
        own = {
            "format": FORMAT,
            "settings": dataclasses.asdict(settings),
            "provenance": encoder.provenance,
            "versions": {"simcse": simcse.__version__, **versions},
            "sha256": checksums(new),
        }
        write_text(new / OWN, json.dumps(own, indent=2) + "\n")


def stored_head(folder: Path) -> dict[str, torch.Tensor] | None:
    """Return the projection head in a checkpoint of the original SimCSE code, else ``None``.

    That code stores its head beside the backbone, as ``mlp.dense``, and does not say whether it
    applies when sentences are encoded.
    """
    if not (folder / WEIGHTS).is_file():
        return None
    tensors = read_safetensors(folder / WEIGHTS, prefix=_REFERENCE_HEAD)
    return {f"linear.{name}": tensor for name, tensor in tensors.items()} or None


def _read_folder(
    folder: Path, name: str, settings: ModelSettings | None, changes: Mapping[str, Any]
) -> SentenceEncoder:
    stored = _read_stored(folder, name, settings, changes)
    backbone = stored.backbone
    changed = dataclasses.replace(stored.settings, **changes)
    limit = backbone.max_positions
    if limit is not None and changed.max_length > limit:
        raise ConfigError(f"max_length is {changed.max_length}, the backbone has {limit} positions")
    layer = None if changed.postprocess == "none" else stored.postprocess
    wanted = changed.postprocess
    if wanted != "none" and (layer is None or wanted != stored.settings.postprocess):
        raise UsageError(f"{name} has no post-processing {wanted!r} to apply")
    return SentenceEncoder(
        backbone,
        Tokenizer(stored.hf_tokenizer, max_length=changed.max_length),
        changed,
        head=None if changed.head == "none" else stored.head,
        token_weights=stored.token_weights,
        postprocess=layer,
        provenance=stored.provenance,
    )


def _read_stored(
    folder: Path, name: str, settings: ModelSettings | None, changes: Mapping[str, Any]
) -> _Stored:
    source = {"source": name}
    if (folder / OWN).exists():
        return _read_own(folder, settings)
    if settings is not None:
        return _Stored(*_open(folder), settings, provenance=source)
    if name in REFERENCE:
        return _read_reference(folder, REFERENCE[name], source)
    if (folder / modules.MODULES).exists():
        return _read_modules(folder, source)
    if "pooling" not in changes:
        raise UsageError(
            f"{name} does not say how its hidden states become an embedding; pass --pooling mean, "
            "in training model.pooling=mean, in Python settings=ModelSettings(pooling='mean')"
        )
    backbone, hf_tokenizer = _open(folder)
    stated = ModelSettings(**changes)
    found = None if stated.head == "none" else stored_head(folder)
    head = None if found is None else head_from(folder / WEIGHTS, found, backbone.width)
    return _Stored(backbone, hf_tokenizer, stated, head, provenance=source)


def _read_own(folder: Path, settings: ModelSettings | None) -> _Stored:
    own = read_json(folder / OWN)
    if own.get("format") != FORMAT:
        found = own.get("format")
        raise ArtifactError(f"{folder / OWN}: expected format {FORMAT}, got {found!r}")
    try:
        written = config.build(ModelSettings, own["settings"], section="settings.")
        check_checksums(folder, own["sha256"])
        provenance = dict(own["provenance"])
    except (ConfigError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder / OWN} is damaged: {error!r}") from error
    backbone, hf_tokenizer = _open(folder)
    settings = settings or written
    has_head = settings.head != "none" and written.head == "always"
    has_layer = settings.postprocess == written.postprocess
    head, layer, weights = modules.read_layers(
        folder, backbone.width, hf_tokenizer, head=has_head, postprocess=has_layer
    )
    if has_head and head is None:
        raise ArtifactError(f"{folder / modules.MODULES} has no Dense module, the projection head")
    if settings.head != "none" and not has_head and (folder / HEAD).exists():
        head = read_head(folder / HEAD, backbone.width)
    if read_json(folder / OWN) != own:
        raise ArtifactError(f"{folder} was replaced while it was read")
    return _Stored(backbone, hf_tokenizer, settings, head, layer, weights, provenance)


def _read_modules(folder: Path, provenance: dict[str, Any]) -> _Stored:
    """Read a sentence-transformers folder."""
    backbone, hf_tokenizer = _open(modules.read_layout(folder)["Transformer"])
    settings = modules.read_modules(folder, backbone, hf_tokenizer)
    layers = modules.read_layers(folder, backbone.width, hf_tokenizer)
    return _Stored(backbone, hf_tokenizer, settings, *layers, provenance)


def _read_reference(folder: Path, settings: ModelSettings, provenance: dict[str, Any]) -> _Stored:
    """Read a released SimCSE model, whose projection head is stored as BERT's pooler."""
    backbone, hf_tokenizer = _open(folder, with_pooler=settings.head != "none")
    head = None
    if settings.head != "none":
        head = ProjectionHead(backbone.width)
        head.dense.load_state_dict(backbone.model.pooler.dense.state_dict())
        backbone.model.pooler = None
    return _Stored(backbone, hf_tokenizer, settings, head, provenance=provenance)


def _open(folder: Path, *, with_pooler: bool = False) -> tuple[Backbone, Any]:
    """Return the backbone and the Hugging Face tokenizer of a folder."""
    model = huggingface.read_backbone(folder, with_pooler=with_pooler)
    return Backbone(model), huggingface.read_tokenizer(folder, model)


def _choose_device(device: str | None) -> torch.device:
    """Resolve ``None``, and check that the device is there."""
    try:
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"device {device!r}: expected cpu, cuda or cuda:N") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError(f"device {device!r}: torch finds no CUDA device here")
    return target


def _state(folder: Path) -> tuple[int, int] | None:
    """Return what changes when another folder replaces this one."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
