"""How many bytes the weights of a model need at least, told from its files without loading them."""

from ortc.inspection.weights.find import find_weights
from ortc.inspection.weights.model import Found, Weights, least_bytes

__all__ = ["Found", "Weights", "find_weights", "least_bytes"]
