"""What is done around a model's tensors: texts to token ids, and outputs to answers, as processing.json says.

Needs Python >= 3.11, numpy and tokenizers; bundles that take tensors alone are without it.
"""
