"""Encoding with exported models in other runtimes, in a process that does not load torch."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from simcse.errors import ResourceError
from simcse.model.export_loaders import in_batches

BATCH = 64  # sentences
COMPARED = 100  # sentences whose embeddings are compared
Work = Callable[[], list[list[float]]]
Graph = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def encode(
    model: str,
    sentences: Sequence[str],
    *,
    max_length: int,
    repeats: int,
    runtime: str,
    dtype: str,
) -> Work:
    """Encode with a runtime, longest sentences first.

    Args:
        model: a process of its own exports it.
        sentences: N texts.
        max_length: limit in tokens.
        repeats: number of passes over the sentences per unit of work.
        runtime: ``onnx`` or ``openvino``.
        dtype: ``fp32``, ``int8`` (dynamic, a scale for each channel), or with OpenVINO ``bf16``.

    Raises:
        ResourceError: the model cannot be exported.
    """
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "export"
        stored = "int8" if dtype == "int8" else "fp32"
        options = [
            "--to",
            "onnx",
            "--dtype",
            stored,
            "--max-length",
            str(max_length),
            "--min-cosine",
            "0",
        ]
        few = Path(home) / "few.txt"  # the race itself measures the agreement
        few.write_text("\n".join(sentences[:8]), encoding="utf-8")
        options += ["--sentences", str(few)]
        command = [
            sys.executable,
            "-m",
            "simcse",
            "export",
            model,
            *options,
            "--output",
            str(folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ResourceError(f"cannot export {model}: {done.stderr.strip()}")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # truncates and pads
        graph = _LOADERS[runtime](folder / "model.onnx", dtype)

    def encode_some(texts: Sequence[str]) -> np.ndarray:
        rows = tokenizer.encode_batch(list(texts))
        ids = np.array([row.ids for row in rows])
        mask = np.array([row.attention_mask for row in rows])
        return graph({"input_ids": ids, "attention_mask": mask})

    encode_all = in_batches(encode_some, BATCH)
    return repeated(lambda: encode_all(sentences), repeats)


def repeated(encode_all: Callable[[], np.ndarray], repeats: int) -> Work:
    """Return a unit of work of ``repeats`` passes, which returns the first `COMPARED` rows."""

    def work() -> list[list[float]]:
        for _ in range(repeats - 1):
            encode_all()
        rows: list[list[float]] = encode_all()[:COMPARED].tolist()
        return rows

    return work


def _load_onnx(path: Path, _dtype: str) -> Graph:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: np.asarray(session.run(None, dict(inputs))[0])


def _load_openvino(path: Path, dtype: str) -> Graph:
    import openvino

    hint = "bf16" if dtype == "bf16" else "f32"
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda inputs: np.asarray(compiled(dict(inputs))[0])


_LOADERS: Mapping[str, Callable[[Path, str], Graph]] = {
    "onnx": _load_onnx,
    "openvino": _load_openvino,
}
