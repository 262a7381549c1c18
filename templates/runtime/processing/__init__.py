"""What is done around a model's tensors: texts, images or sounds to inputs, and outputs to answers.

processing.json says how. Needs Python >= 3.11 and numpy, for texts tokenizers and for images Pillow; bundles that take
tensors alone are without it.
"""
