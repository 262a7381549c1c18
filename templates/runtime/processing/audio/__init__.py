"""Sound to a model's inputs, and a model's outputs to answers about sound; bundles of texts and images lack it."""
