"""Bundles, which are the unit that ships: manifest, assembly, publication, verification, attachment."""
