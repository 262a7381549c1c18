"""How many bytes the weights of a model need at least, told from its files without loading them."""

from ortc.weights.find import find_weights
from ortc.weights.model import Weights, least_bytes

__all__ = ["Weights", "find_weights", "least_bytes"]
