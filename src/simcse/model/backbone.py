"""The backbone: any Hugging Face encoder, run packed where its architecture allows it."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from simcse.errors import UsageError
from simcse.model import attention
from simcse.model.attention import PackingPlan, attend
from simcse.model.dropout import DropoutRng, replace_dropout
from simcse.model.kernels import attention_implementation, uses_attention_interface
from simcse.model.linear import Linear, replace_linear
from simcse.model.precision import Chosen
from simcse.text import TokenBatch, pack

# Numbers of rows between two powers of two, as `rounded_up` takes them. oneDNN caches its kernels
# for each number it has met: with 64, texts of all lengths soon take half a gigabyte. A training's
# batches are of nearly one size, and there every row of filler costs three products.
ENCODING_ROW_SIZES, TRAINING_ROW_SIZES = 8, 64
BERT_LIKE = ("BertLayer", "CamembertLayer", "ElectraLayer", "RobertaLayer", "XLMRobertaLayer")


class Backbone(nn.Module):
    """A Hugging Face encoder that takes a `TokenBatch` and gives hidden states of its tokens.

    Attributes:
        model: the Hugging Face model.
        packed: whether sentences run in one row without padding; otherwise padded.
        direct: whether it encodes by `run_directly`, past transformers' modules.
        dropout_rng: the random numbers of the dropouts while training.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - HF has no common type
        super().__init__()
        self.model = model
        self.dropout_rng = DropoutRng()
        self._padded_attention = attention_implementation(model)
        attention.register()
        replace_linear(model)
        self.train(model.training)
        self.direct = False
        takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        can_pack = takes_positions and uses_attention_interface(model)
        self.packed = can_pack and self._packs_exactly()
        if self.packed and _is_bert_like(model):
            self.direct = True
            self.direct = self._packs_exactly()

    @property
    def precision(self) -> Chosen | Literal["int8"]:
        """Number format that it encodes in."""
        if any(isinstance(module, Linear) and module.int8 for module in self.model.modules()):
            return "int8"
        rounded = any(weight.dtype == torch.bfloat16 for weight in self.model.parameters())
        return "bf16" if rounded else "fp32"

    @property
    def width(self) -> int:
        """Size of a hidden state."""
        return int(self.model.config.hidden_size)

    @property
    def layer_count(self) -> int:
        """Number of transformer layers."""
        return int(self.model.config.num_hidden_layers)

    @property
    def max_positions(self) -> int | None:
        """Longest sentence in tokens; ``None`` if the architecture sets no limit."""
        table = _position_table(self.model)
        return None if table is None else table.num_embeddings - _first_position(self.model)

    def forward(self, batch: TokenBatch, layers: Sequence[int] = (-1,)) -> list[Tensor]:
        """Compute hidden states (T, D) of the named layers; 0 is the embedding, -1 the last."""
        return (self._packed_states if self.packed else self._padded_states)(batch, layers)

    def padded_model(self) -> Any:  # noqa: ANN401 - HF has no common type
        """Return the Hugging Face model, set to run on padded batches as transformers does."""
        self.model.set_attn_implementation(self._padded_attention)
        return self.model

    def set_dropout(self, rate: float | None = None) -> None:
        """Let all dropouts draw from `dropout_rng`, each at its own rate unless one is given."""
        replace_dropout(self.model, self.dropout_rng, rate)

    def keep_layers(self, count: int) -> None:
        """Drop all layers above the first ``count``.

        Raises:
            UsageError: the backbone has fewer layers, or its layers are not found.
        """
        if not 1 <= count <= self.layer_count:
            raise UsageError(f"layers must be 1 to {self.layer_count}, got {count}")
        stacks = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList) and len(module) == self.layer_count
        ]
        if len(stacks) != 1:
            name = type(self.model).__name__
            raise UsageError(f"cannot find the layers of {name}, so none can be dropped")
        del stacks[0][count:]
        config = self.model.config
        config.num_hidden_layers = count
        if getattr(config, "layer_types", None) is not None:  # ModernBERT: local and global
            config.layer_types = config.layer_types[:count]

    def set_compute(self, dtype: torch.dtype) -> None:
        """Store the weights in ``dtype``, but embedding tables and buffers in fp32.

        A token's rows of an embedding gradient are summed one by one, which bf16 cannot do
        without loss; their output is cast instead. Rotary frequencies, which are buffers, would
        move the positions if they were rounded. Products made by `simcse.model.int8` are dropped.
        """
        for name, module in self.model.named_modules():
            if isinstance(module, Linear):
                module.int8 = module.int8_joined = None
            # DeBERTa multiplies with the weights of its `rel_embeddings`, past any hook.
            table = isinstance(module, nn.Embedding) and not name.endswith("rel_embeddings")
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.float32 if table else dtype)
            if table:
                if not hasattr(module, "output_dtype"):
                    module.register_forward_hook(_cast_output)
                module.output_dtype = dtype

    def _packed_states(self, batch: TokenBatch, wanted: Sequence[int]) -> list[Tensor]:
        count, device = len(batch.input_ids), batch.input_ids.device
        row_sizes = TRAINING_ROW_SIZES if self.training else ENCODING_ROW_SIZES
        filler = attention.rounded_up(count, row_sizes) - count  # tokens nobody attends to
        seeds = self._begin_pass(batch)
        if seeds is not None:
            self.dropout_rng.token_seeds = nn.functional.pad(seeds, (0, filler)).unsqueeze(0)
        plan = attention.plan_packing(
            batch.lengths, device, dropout_rng=self.dropout_rng, token_seeds=seeds
        )
        positions = batch.positions + _first_position(self.model)  # (T,)
        ids, positions = (nn.functional.pad(x, (0, filler)) for x in (batch.input_ids, positions))
        if self.direct and self._encodes():
            all_states = enumerate(run_directly(self.model, ids, positions, plan))
            numbers = [number % (self.layer_count + 1) for number in wanted]
            picked = {number: states for number, states in all_states if number in numbers}
            return [picked[number][:count] for number in numbers]
        inputs = {
            "input_ids": ids.unsqueeze(0),
            "position_ids": positions.unsqueeze(0),
            "packing_plan": plan,
        }
        return [states[0, :count] for states in self._run(attention.PACKED, inputs, wanted)]

    def _encodes(self) -> bool:
        """Whether only embeddings are computed: no dropout, no gradient, no autocast."""
        return (
            torch.is_inference_mode_enabled()
            and not self.training
            and not torch.is_autocast_enabled(next(self.model.parameters()).device.type)
        )

    def _padded_states(self, batch: TokenBatch, layers: Sequence[int]) -> list[Tensor]:
        lengths = torch.tensor(batch.lengths, device=batch.input_ids.device)
        mask = torch.arange(batch.lengths[-1], device=lengths.device) < lengths[:, None]  # (B, L)
        seeds = self._begin_pass(batch)
        if seeds is not None:
            self.dropout_rng.token_seeds = _padded(seeds, mask)
        inputs = {
            "input_ids": _padded(batch.input_ids, mask, self.model.config.pad_token_id or 0),
            "attention_mask": mask.long(),
        }
        return [states[mask] for states in self._run(self._padded_attention, inputs, layers)]

    def _begin_pass(self, batch: TokenBatch) -> Tensor | None:
        """Begin a pass of the dropout_rng: (T,) seeds of tokens; ``None`` while not training."""
        if not self.training:
            return None
        return self.dropout_rng.begin(batch.sentences, batch.positions)

    def _run(
        self, implementation: str, inputs: Mapping[str, Any], layers: Sequence[int]
    ) -> list[Tensor]:
        """Run the Hugging Face model and pick layers; it returns all states only if needed."""
        if attention_implementation(self.model) != implementation:
            self.model.set_attn_implementation(implementation)
        last_only = tuple(layers) == (-1,)
        output = self.model(**inputs, output_hidden_states=not last_only)
        if last_only:
            return [output.last_hidden_state]
        states = (*output.hidden_states[:-1], output.last_hidden_state)
        return [states[layer] for layer in layers]

    @torch.inference_mode()
    def _packs_exactly(self) -> bool:
        """Compare two sentences packed with the same two padded."""
        vocabulary = int(self.model.config.vocab_size)
        batch = pack([[i % vocabulary for i in range(3, 3 + n)] for n in (5, 9)])
        batch = batch.to(next(self.model.parameters()).device)
        was_training = self.training
        self.eval()
        packed, padded = self._packed_states(batch, (-1,)), self._padded_states(batch, (-1,))
        self.train(was_training)
        return torch.allclose(packed[0], padded[0], atol=1e-4)


def run_directly(model: Any, ids: Tensor, positions: Tensor, plan: PackingPlan) -> Iterator[Tensor]:  # noqa: ANN401
    """Yield the hidden states (T, D) of the embedding and of each layer, in few operations.

    For one short sentence the calls, checks and views of transformers' modules take longer than
    the arithmetic. Training and other architectures use them all the same. ``ids`` (T,) are packed
    sentences with filler behind them, ``positions`` (T,) count in each sentence.
    """
    hidden = model.embeddings(input_ids=ids.unsqueeze(0), position_ids=positions.unsqueeze(0))[0]
    if hasattr(model, "embeddings_project"):  # ELECTRA
        hidden = model.embeddings_project(hidden)
    yield hidden
    biases = [bias.to(hidden.dtype) for bias in plan.biases]
    for layer in model.encoder.layer:
        own = layer.attention.self
        q, k, v = (
            rows.unflatten(1, (own.num_attention_heads, -1))  # (T, H, Dh)
            for rows in own.query.forward_with(hidden, (own.key, own.value))
        )
        mixed = attend(q, k, v, plan, biases, own.scaling).reshape(hidden.shape)
        hidden = _add_and_norm(layer.attention.output, mixed, hidden)
        hidden = _add_and_norm(layer.output, layer.intermediate.forward(hidden), hidden)
        yield hidden


def _add_and_norm(module: Any, values: Tensor, residual: Tensor) -> Tensor:  # noqa: ANN401
    total = module.dense.forward(values).add_(residual)
    norm = module.LayerNorm
    return nn.functional.layer_norm(total, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _is_bert_like(model: Any) -> bool:  # noqa: ANN401
    """Whether all layers are built like BERT's, with our projections: quantized models differ."""
    layers = getattr(getattr(model, "encoder", None), "layer", ())
    return bool(layers) and all(
        type(layer).__name__ in BERT_LIKE
        and all(
            isinstance(getattr(layer.attention.self, name), Linear)
            for name in ("query", "key", "value")
        )
        for layer in layers
    )


def _cast_output(module: nn.Module, _: Any, output: Tensor) -> Tensor:  # noqa: ANN401 - a forward hook
    return output.to(module.output_dtype)  # type: ignore[arg-type]  # set by `set_compute`


def _padded(rows: Tensor, mask: Tensor, filler: int = 0) -> Tensor:
    """Lay rows of tokens (T,) out as ``mask`` (B, L) says."""
    padded = rows.new_full(mask.shape, filler)
    padded[mask] = rows
    return padded


def _first_position(model: nn.Module) -> int:
    """Return where positions start: RoBERTa reserves the rows up to the padding index."""
    table = _position_table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def _position_table(model: nn.Module) -> nn.Embedding | None:
    """Return the learned position embeddings; rotary and relative positions have no table."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None
