"""Models for other tools: written, read back by that tool, compared, and only then handed over."""

import contextlib
import functools
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from simcse.errors import ArtifactError, ResourceError, UsageError
from simcse.io.checkpoints import atomic_folder, write_safetensors
from simcse.io.files import write_text
from simcse.model import export_loaders, huggingface
from simcse.model.encoder import SentenceEncoder
from simcse.model.folder import OWN, STORED_DTYPES, stored_head
from simcse.model.modules import MODULES
from simcse.model.pooling import SPECS, pool_padded
from simcse.postprocess import Flow

Format = Literal["sentence-transformers", "transformers", "onnx", "openvino"]
Dtype = Literal["fp32", "fp16", "int8"]
Encode = Callable[[Sequence[str]], np.ndarray]

# The lowest cosine with the original that an export may have. int8 is meant for ranking.
MIN_COSINES: Mapping[Dtype, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95}
DTYPES: Mapping[Format, tuple[Dtype, ...]] = {
    "sentence-transformers": ("fp32", "fp16"),
    "transformers": ("fp32", "fp16"),
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "fp16"),
}
NEEDS: Mapping[Format, tuple[str, ...]] = {
    "sentence-transformers": ("sentence_transformers",),
    "transformers": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
LARGEST_ONNX = 1 << 30  # bytes of weights in one file; protobuf's own limit is twice that
MODEL = "model.onnx"


@dataclass(frozen=True)
class ExportAgreement:
    """How close the embeddings of two encoders are, over the same sentences."""

    sentences: int  # number of sentences
    lowest: float  # lowest cosine of a sentence's two embeddings
    mean: float  # mean cosine
    length: float  # largest relative difference of their lengths

    def reaches(self, min_cosine: float) -> bool:
        """Whether every cosine, and every length as such an angle would change it, is within."""
        return self.lowest >= min_cosine and self.length <= (2 * (1 - min_cosine)) ** 0.5


@dataclass(frozen=True)
class Export:
    """A written export."""

    agreement: ExportAgreement  # with the original
    encode: Encode  # the written model, as its own tool runs it


class EmbeddingGraph(nn.Module):
    """Backbone, pooling, head, post-processing and normalization in one module.

    Unlike `SentenceEncoder` it takes padded batches, and has no branch that depends on them.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        super().__init__()
        self.model = encoder.backbone.padded_model()
        self.encoder = encoder.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed padded sentences: ids and mask (B, L) int64 -> (B, K) float32."""
        pooling = self.encoder.settings.pooling
        layers = SPECS[pooling].layers
        last_only = layers == (-1,)
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=not last_only
        )
        states = [
            output.last_hidden_state if last_only else output.hidden_states[layer]
            for layer in layers
        ]
        weights = attention_mask
        if self.encoder.token_weights is not None:
            weights = weights * self.encoder.token_weights(input_ids)
        return self.encoder.embed_pooled(pool_padded(states, weights, pooling))


def export_model(
    encoder: SentenceEncoder,
    folder: Path,
    to: Format,
    *,
    sentences: Sequence[str],
    dtype: Dtype = "fp32",
    min_cosine: float | None = None,
) -> Export:
    """Write ``encoder`` for another tool, load it there and compare embeddings.

    The README in the folder shows the code that was used for it. Nothing is written unless the
    embeddings agree.

    Args:
        encoder: in fp32.
        folder: to write; a folder already there is replaced.
        to: the format.
        sentences: the sentences whose embeddings are compared.
        dtype: number format of the stored weights; see `DTYPES`.
        min_cosine: lowest cosine allowed; ``None`` is that of `MIN_COSINES`.

    Raises:
        UsageError: the format cannot say what the model does, or has no such ``dtype``.
        ResourceError: a package is not installed, or the folder cannot be written.
        ArtifactError: the export does not reproduce the original.
    """
    _check_support(encoder, to, dtype)
    _require(to)
    min_cosine = MIN_COSINES[dtype] if min_cosine is None else min_cosine
    with atomic_folder(folder) as new:
        _WRITERS[to](encoder, new, dtype)
        code, options = _loader(encoder, to)
        write_text(new / "README.md", _readme(encoder, to, code, options))
        with quiet():
            shared = {"core": _openvino_core()} if to == "openvino" else {}
            encode = export_loaders.in_batches(code(str(new), **options, **shared))
            found = compare_encoders(
                lambda texts: encoder.encode(texts, truncation="truncate"), encode, sentences
            )
        if not found.reaches(min_cosine):
            raise ArtifactError(
                f"the {to} export does not reproduce the model: lowest cosine {found.lowest:.6f}, "
                f"mean {found.mean:.6f}, lengths differ by up to {found.length:.2%}; expected a "
                f"cosine of at least {min_cosine}. Nothing was written"
            )
    return Export(found, encode)


def foreign_encode(encoder: SentenceEncoder, name: str) -> Encode | None:
    """Return how its own tool embeds by the folder that ``encoder`` was read from.

    ``None`` for a folder written here, whose checksums are proof enough, and for a checkpoint of
    the original SimCSE code, which no other tool reads.

    Raises:
        ResourceError: it is a sentence-transformers folder, and that is not installed.
    """
    folder = huggingface.locate(name)
    if (folder / OWN).exists() or stored_head(folder):
        return None
    to: Format = "sentence-transformers" if (folder / MODULES).exists() else "transformers"
    _require(to)
    code, options = _loader(encoder, to)
    with quiet():
        return export_loaders.in_batches(code(str(folder), **options))


def compare_encoders(first: Encode, second: Encode, sentences: Sequence[str]) -> ExportAgreement:
    """Compare two encoders on the same sentences.

    Raises:
        ArtifactError: their embeddings differ in size.
    """
    left, right = (np.asarray(encode(sentences), np.float64) for encode in (first, second))
    if left.shape != right.shape:
        raise ArtifactError(f"embeddings have shape {right.shape}, the original's {left.shape}")
    lengths = [np.linalg.norm(side, axis=1) for side in (left, right)]
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (left * right).sum(1) / (lengths[0] * lengths[1])
        off = np.abs(lengths[1] / lengths[0] - 1)
    return ExportAgreement(len(left), float(cosines.min()), float(cosines.mean()), float(off.max()))


def _require(to: Format) -> None:
    lacking = [name for name in NEEDS[to] if importlib.util.find_spec(name) is None]
    if lacking:
        raise ResourceError(f"{to} needs {lacking[0]}: pip install 'simcse-next[{to}]'")


def _check_support(encoder: SentenceEncoder, to: Format, dtype: Dtype) -> None:
    if dtype not in DTYPES[to]:
        raise UsageError(f"{to} is exported in {' or '.join(DTYPES[to])}, not {dtype}")
    if any(weight.dtype != torch.float32 for weight in encoder.parameters()):
        raise UsageError("export a model that was loaded with precision='fp32'")
    other = "export to onnx or openvino, whose graph holds it"
    if to == "sentence-transformers" and isinstance(encoder.postprocess, Flow):
        raise UsageError(f"sentence-transformers has no module for a flow; {other}")
    if to != "transformers":
        return
    if encoder.postprocess is not None:
        raise UsageError(f"a transformers folder cannot hold post-processing; {other}")
    model = encoder.backbone.model
    has_pooler = "add_pooling_layer" in inspect.signature(type(model)).parameters
    if encoder.settings.head == "always" and not (encoder.settings.pooling == "cls" and has_pooler):
        raise UsageError(
            "a transformers folder holds a projection head as BERT's pooler only, which follows "
            f"the first token; {other}"
        )


def _write_sentence_transformers(encoder: SentenceEncoder, folder: Path, dtype: Dtype) -> None:
    encoder.save(folder, dtype="fp16" if dtype == "fp16" else "fp32")


def _write_transformers(encoder: SentenceEncoder, folder: Path, dtype: Dtype) -> None:
    pooler = {}
    if encoder.head is not None and encoder.settings.head == "always":
        weights = encoder.head.dense.state_dict()
        pooler = {f"pooler.dense.{name}": tensor for name, tensor in weights.items()}
    huggingface.write_backbone(
        encoder.backbone.model,
        folder,
        dtype=STORED_DTYPES["fp16" if dtype == "fp16" else "fp32"],
        all_layers=False,
        further=pooler,
    )
    huggingface.write_tokenizer(encoder.tokenizer.hf_tokenizer, folder)
    if encoder.token_weights is not None:
        write_safetensors(folder / "token_weights.safetensors", encoder.token_weights.state_dict())


def _write_onnx(encoder: SentenceEncoder, folder: Path, dtype: Dtype) -> None:
    _write_padding_tokenizer(encoder, folder)
    _trace(encoder, folder / MODEL)
    if dtype == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole = (folder / MODEL).rename(folder / "fp32.onnx")
        with quiet():
            quantize_dynamic(whole, folder / MODEL, per_channel=True, weight_type=QuantType.QInt8)
        for path in folder.glob("fp32.onnx*"):
            path.unlink()


def _write_openvino(encoder: SentenceEncoder, folder: Path, dtype: Dtype) -> None:
    import openvino

    _write_padding_tokenizer(encoder, folder)
    _trace(encoder, folder / MODEL)
    model = _openvino_core().read_model(folder / MODEL)  # convert_model would report its use
    try:
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=dtype == "fp16")
    except RuntimeError as error:  # raised for a full disk
        reason = str(error).strip().partition("\n")[0]
        raise ResourceError(f"OpenVINO cannot write {folder.name}: {reason}") from error
    for path in folder.glob(f"{MODEL}*"):
        path.unlink()


@functools.cache
def _openvino_core() -> Any:  # noqa: ANN401 - openvino has no types
    """Return the one core of this process; `export_loaders.load_openvino` gives the reason.

    The processor plugin of each core has a signal stack of its own (`SigAltStackSetup`, since
    https://github.com/openvinotoolkit/openvino/pull/11894) and puts back its predecessor's, there
    or not.
    """
    import openvino

    return openvino.Core()


_WRITERS: Mapping[Format, Callable[[SentenceEncoder, Path, Dtype], None]] = {
    "sentence-transformers": _write_sentence_transformers,
    "transformers": _write_transformers,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def _trace(encoder: SentenceEncoder, path: Path) -> None:
    """Write the ONNX graph from token ids and mask (B, L) to finished embeddings (B, K)."""
    example = torch.ones(2, 8, dtype=torch.int64, device=encoder.device)
    mask = torch.ones_like(example)
    mask[0, 4:] = 0  # transformers drops a mask without padding, and the graph would lack it
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    size = sum(weight.numel() * weight.element_size() for weight in encoder.parameters())
    with quiet(), torch.no_grad():
        try:
            torch.onnx.export(
                EmbeddingGraph(encoder),
                (example, mask),
                path,
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                dynamic_shapes={"input_ids": shape, "attention_mask": shape},
                external_data=size > LARGEST_ONNX,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error).strip().partition("\n")[0]
            name = type(encoder.backbone.model).__name__
            raise UsageError(f"torch cannot export {name} to ONNX: {reason}") from error


def _write_padding_tokenizer(encoder: SentenceEncoder, folder: Path) -> None:
    """Write a ``tokenizer.json`` that truncates and pads by itself."""
    tokenizer = encoder.tokenizer.hf_tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        name = type(tokenizer).__name__
        raise UsageError(f"{name} has no tokenizer.json, which this export needs")
    backend.enable_truncation(encoder.settings.max_length)
    backend.enable_padding(pad_id=tokenizer.pad_token_id or 0, pad_token=tokenizer.pad_token or "")
    try:
        write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    finally:
        backend.no_truncation()
        backend.no_padding()


def _loader(
    encoder: SentenceEncoder, to: Format
) -> tuple[Callable[..., Encode], Mapping[str, Any]]:
    """Return the function that loads an export, and its options."""
    if to == "sentence-transformers":
        return export_loaders.load_sentence_transformers, {}
    if to != "transformers":
        return (export_loaders.load_onnx if to == "onnx" else export_loaders.load_openvino), {}
    settings = encoder.settings
    pooled = "cls" if settings.pooling == "cls" else "mean"
    return export_loaders.load_transformers, {
        "layers": SPECS[settings.pooling].layers,
        "pooling": "pooler" if settings.head == "always" else pooled,
        "max_length": settings.max_length,
        "normalize": settings.normalize,
        "weighted": encoder.token_weights is not None,
    }


def _readme(
    encoder: SentenceEncoder, to: Format, code: Callable[..., Encode], options: Mapping[str, Any]
) -> str:
    arguments = "".join(f", {name}={value!r}" for name, value in options.items())
    functions: list[Callable[..., Any]] = [code]
    if to in ("onnx", "openvino"):
        functions.insert(0, export_loaders.load_tokenizer)
    source = "\n\n".join(map(inspect.getsource, functions))
    return (
        f"# Sentence embeddings of {encoder.dimensions} dimensions, for {to}\n\n"
        "This folder was verified with the following code:\n\n"
        "```python\nfrom collections.abc import Callable, Sequence\n\nimport numpy as np\n\n\n"
        f"{source}\n\n"
        f'encode = {code.__name__}("path/of/this/folder"{arguments})\n'
        'vectors = encode(["A man is playing a guitar."])\n```\n'
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the tools' warnings: the comparison shows what is wrong."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
