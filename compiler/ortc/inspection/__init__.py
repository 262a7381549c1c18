"""Facts from a model's files, read without running them, and the first spec made of them."""
