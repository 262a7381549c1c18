"""Layers of integers that need no ranges: LSTM, whose products become integers, and what only stores its weights so.

ONNX Runtime computes an LSTM on integers (DynamicQuantizeLSTM): weights are signed, with one scale for each output of a
direction, and activations are rounded while the model runs. It has no such kernels for GRU, RNN and ConvTranspose on a
CPU: their weights are stored as int8 and turned into float32 where they are read, which saves size and no time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ortc.passes.canonical import node_name
from ortc.passes.quantization.editor import Editor, round_channels
from ortc.passes.quantization.quantizable import is_standard, is_weight

if TYPE_CHECKING:
    import onnx_ir as ir

RECURRENT = "LSTM"
"""Computed on integers."""
STORED = ("GRU", "RNN", "ConvTranspose")
"""Operators whose weights alone become integers."""
LAYERS = (RECURRENT, *STORED)
_WEIGHTS = {"LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "ConvTranspose": (1,)}
"""Places of the weights among a node's inputs. All have their outputs on axis 1."""
_AXIS = 1
_INPUTS_OF_LSTM = 8
"""How many inputs an LSTM has, optional ones too; DynamicQuantizeLSTM's scales and zero points follow them."""
_DOMAIN = "com.microsoft"


@dataclass(frozen=True, eq=False)
class Layer:
    """A node whose constant weights become integers."""

    node: ir.Node

    @property
    def name(self) -> str:
        """The node's name, or that of its output where it has none."""
        return node_name(self.node)

    @property
    def weights(self) -> tuple[ir.Value, ...]:
        """The weights, in 32-bit floating point."""
        values = (self.node.inputs[place] for place in _WEIGHTS[self.node.op_type])
        return tuple(value for value in values if value is not None)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first weight."""
        tensor = self.weights[0].const_value
        assert tensor is not None  # noqa: S101  # find_layers asked for it
        return tuple(tensor.shape.numpy())


def find_layers(model: ir.Model, operators: Iterable[str]) -> Iterator[Layer]:
    """The nodes of the main graph, in its order, whose weights can become integers; operators of LAYERS alone count."""
    wanted = set(operators) & set(LAYERS)
    for node in model.graph:
        if node.op_type not in wanted or not is_standard(node) or node.attributes.get_int("layout", 0) != 0:
            continue
        places = _WEIGHTS[node.op_type]
        if len(node.inputs) > places[-1] and all(is_weight(node.inputs[place]) for place in places):
            yield Layer(node)


def emit(model: ir.Model, operators: Iterable[str], exclude: Collection[str] = ()) -> int:
    """Quantize the layers of a model in place.

    Args:
        model: in 32-bit floating point, of opset LEAST_INT8_OPSET or higher.
        operators: types of nodes; those that are none of LAYERS are passed over.
        exclude: names of nodes to leave as they are.

    Returns:
        How many nodes were changed.
    """
    emitter = _Emitter(model)
    found = [layer for layer in find_layers(model, operators) if layer.name not in exclude]
    for layer in found:
        emitter.quantize(layer)
    emitter.remove_unused()
    return len(found)


class _Emitter(Editor):
    """One model while its layers are quantized; a weight that several nodes read is stored once."""

    def __init__(self, model: ir.Model) -> None:
        super().__init__(model)
        self.matrices: dict[ir.Value, tuple[ir.Value, ...]] = {}
        self.stored: dict[ir.Value, tuple[ir.Value, ...]] = {}

    def quantize(self, layer: Layer) -> None:
        if layer.node.op_type == RECURRENT:
            self._compute_on_integers(layer)
        else:
            self._store(layer)

    def _compute_on_integers(self, layer: Layer) -> None:
        """Make an LSTM one of integers, in place: its outputs stay."""
        node = layer.node
        constants = [self._transposed(weight) for weight in layer.weights]
        node.resize_inputs(_INPUTS_OF_LSTM + 2 * len(constants))
        for place, (integers, scales, zeros) in enumerate(constants):
            node.replace_input_with(_WEIGHTS[RECURRENT][place], integers)
            node.replace_input_with(_INPUTS_OF_LSTM + 2 * place, scales)
            node.replace_input_with(_INPUTS_OF_LSTM + 2 * place + 1, zeros)
        node.op_type, node.domain = "DynamicQuantizeLSTM", _DOMAIN
        node.attributes.pop("layout", None)
        self.model.opset_imports.setdefault(_DOMAIN, 1)

    def _transposed(self, weight: ir.Value) -> tuple[ir.Value, ...]:
        """Integers of a weight [directions, outputs, inputs] as [directions, inputs, outputs], scales, zero points."""
        if weight not in self.matrices:
            assert weight.const_value is not None  # noqa: S101  # find_layers asked for it
            rounded = [round_channels(str(weight.name), matrix, axis=0) for matrix in weight.const_value.numpy()]
            integers = np.stack([matrix.T for matrix, _ in rounded])
            scales = np.stack([scale for _, scale in rounded])
            self.matrices[weight] = self.integers(str(weight.name), integers, scales)
        return self.matrices[weight]

    def _store(self, layer: Layer) -> None:
        """Read weights from integers with a scale for each output."""
        for place, weight in zip(_WEIGHTS[layer.node.op_type], layer.weights, strict=True):
            if weight not in self.stored:
                assert weight.const_value is not None  # noqa: S101  # find_layers asked for it
                rounded = round_channels(str(weight.name), weight.const_value.numpy(), axis=_AXIS)
                self.stored[weight] = self.integers(str(weight.name), *rounded)
            constants, name = self.stored[weight], f"{weight.name}_dequantized"
            value = self.before(layer.node, "DequantizeLinear", constants, name, axis=_AXIS)
            layer.node.replace_input_with(place, value)
