"""A registry of bundles in any place that fsspec reaches; docs/registry.md is its reference."""
