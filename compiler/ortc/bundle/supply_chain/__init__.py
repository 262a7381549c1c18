"""Bills of materials, provenance and signatures of bundles."""
