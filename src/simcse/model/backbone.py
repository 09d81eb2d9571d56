"""The backbone: any Hugging Face encoder, run packed where its architecture allows it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from simcse.errors import UsageError
from simcse.model import attention, layers
from simcse.model.dropout import DropoutRng, replace_dropout
from simcse.model.linear import Linear, replace_linear
from simcse.model.precision import Chosen
from simcse.text import TokenBatch, pack

# Numbers of rows between two powers of two, as `rounded_up` takes them. oneDNN keeps its kernels
# for each number it has met: with 64, texts of all lengths soon take half a gigabyte. A training's
# batches are of nearly one size, and there every row of filler costs three products.
ENCODING_ROW_SIZES, TRAINING_ROW_SIZES = 8, 64


class Backbone(nn.Module):
    """A Hugging Face encoder that takes a `TokenBatch` and gives hidden states of its tokens.

    Attributes:
        model: the Hugging Face model.
        packed: whether sentences run in one row without padding; otherwise padded.
        direct: whether it encodes by `layers`, past transformers' modules.
        dropout_rng: what the dropouts draw from while training.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - HF has no common type
        super().__init__()
        self.model = model
        self.dropout_rng = DropoutRng()
        self._padded_attention: str = model.config._attn_implementation
        attention.register()
        replace_linear(model)
        self.train(model.training)
        self.direct = False
        self.packed = _takes_packed(model) and self._packs_exactly()
        if self.packed and layers.known(model):
            self.direct = True
            self.direct = self._packs_exactly()

    @property
    def precision(self) -> Chosen | Literal["int8"]:
        """What it encodes in."""
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
            raise UsageError(f"cannot tell the layers of {type(self.model).__name__} to cut them")
        del stacks[0][count:]
        config = self.model.config
        config.num_hidden_layers = count
        if getattr(config, "layer_types", None) is not None:  # ModernBERT: local and global
            config.layer_types = config.layer_types[:count]

    def set_compute(self, dtype: torch.dtype) -> None:
        """Hold the weights in ``dtype``, but embedding tables and buffers in fp32.

        A token's rows of an embedding gradient are summed one by one, which bf16 cannot do
        without loss; their output is cast instead. Rotary frequencies, which are buffers, would
        move the positions if they were rounded. What `simcse.model.int8` made is dropped.
        """
        for name, module in self.model.named_modules():
            if isinstance(module, Linear):
                module.int8 = module.int8_joined = None
            # DeBERTa multiplies with the weights of its `rel_embeddings`, past any hook.
            table = isinstance(module, nn.Embedding) and not name.endswith("rel_embeddings")
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.float32 if table else dtype)
            if table:
                module._forward_hooks.clear()
                module.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))

    def _packed_states(self, batch: TokenBatch, wanted: Sequence[int]) -> list[Tensor]:
        count = len(batch.input_ids)
        sizes = TRAINING_ROW_SIZES if self.training else ENCODING_ROW_SIZES
        filler = attention.rounded_up(count, sizes) - count  # tokens nobody attends to
        keys = self._token_keys(batch)
        if keys is not None:
            self.dropout_rng.rows = nn.functional.pad(keys, (0, filler)).unsqueeze(0)
        device = batch.input_ids.device
        layout = attention.lay_out(batch.lengths, device, dropout_rng=self.dropout_rng, keys=keys)
        positions = batch.positions + _first_position(self.model)  # (T,)
        ids, positions = (nn.functional.pad(x, (0, filler)) for x in (batch.input_ids, positions))
        if self.direct and self._encodes():
            all_states = enumerate(layers.run(self.model, ids, positions, layout))
            numbers = [number % (self.layer_count + 1) for number in wanted]
            kept = {number: states for number, states in all_states if number in numbers}
            return [kept[number][:count] for number in numbers]
        inputs = {
            "input_ids": ids.unsqueeze(0),
            "position_ids": positions.unsqueeze(0),
            "layout": layout,
        }
        return [states[0, :count] for states in self._run(attention.PACKED, inputs, wanted)]

    def _encodes(self) -> bool:
        """Whether nothing but embeddings is wanted: no dropout, no gradient, no autocast."""
        return (
            torch.is_inference_mode_enabled()
            and not self.training
            and not torch.is_autocast_enabled(next(self.model.parameters()).device.type)
        )

    def _padded_states(self, batch: TokenBatch, layers: Sequence[int]) -> list[Tensor]:
        lengths = torch.tensor(batch.lengths, device=batch.input_ids.device)
        mask = torch.arange(batch.lengths[-1], device=lengths.device) < lengths[:, None]  # (B, L)
        keys = self._token_keys(batch)
        if keys is not None:
            self.dropout_rng.rows = _padded(keys, mask)
        inputs = {
            "input_ids": _padded(batch.input_ids, mask, self.model.config.pad_token_id or 0),
            "attention_mask": mask.long(),
        }
        return [states[mask] for states in self._run(self._padded_attention, inputs, layers)]

    def _token_keys(self, batch: TokenBatch) -> Tensor | None:
        """Begin a pass of the dropout_rng: (T,) keys of the tokens; ``None`` while not training."""
        if not self.training:
            return None
        return self.dropout_rng.begin(batch.sentences, batch.positions)

    def _run(
        self, implementation: str, inputs: Mapping[str, Any], layers: Sequence[int]
    ) -> list[Tensor]:
        """Run the Hugging Face model and pick layers; only as many states are kept as asked for."""
        if self.model.config._attn_implementation != implementation:
            self.model.set_attn_implementation(implementation)
        last_only = tuple(layers) == (-1,)
        output = self.model(**inputs, output_hidden_states=not last_only)
        if last_only:
            return [output.last_hidden_state]
        states = (*output.hidden_states[:-1], output.last_hidden_state)
        return [states[layer] for layer in layers]

    @torch.inference_mode()
    def _packs_exactly(self) -> bool:
        """Try whether packing two sentences gives what running them padded gives."""
        vocabulary = int(self.model.config.vocab_size)
        batch = pack([[i % vocabulary for i in range(3, 3 + n)] for n in (5, 9)])
        batch = batch.to(next(self.model.parameters()).device)
        was_training = self.training
        self.eval()
        packed, padded = self._packed_states(batch, (-1,)), self._padded_states(batch, (-1,))
        self.train(was_training)
        return torch.allclose(packed[0], padded[0], atol=1e-4)


def _padded(rows: Tensor, mask: Tensor, filler: int = 0) -> Tensor:
    """Lay rows of tokens (T,) out as ``mask`` (B, L) says."""
    padded = rows.new_full(mask.shape, filler)
    padded[mask] = rows
    return padded


def _takes_packed(model: nn.Module) -> bool:
    """Whether the architecture calls transformers' attention interface and takes positions."""
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    return takes_positions and bool(getattr(model, "_supports_attention_backend", False))


def _first_position(model: nn.Module) -> int:
    """Where positions start: RoBERTa and its kin reserve the rows up to the padding index."""
    table = _position_table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def _position_table(model: nn.Module) -> nn.Embedding | None:
    """Return the learned position embeddings; rotary and relative positions have no table."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None
