"""What an object computes with: a walk over everything that it reaches, with a digest of each part.

A model's numbers are in parameters and buffers, but also in attributes, closures, defaults, globals and plain objects.
The digests are the same in every process that builds the same object: neither addresses nor the order of sets count.
"""
