"""Images as a model takes them, and what is made of its outputs; needs numpy and Pillow."""
