"""YAML and JSON with places, and the walk from documents to models."""
