"""The driver of a build: the model's part, each target's part, and their variants."""
