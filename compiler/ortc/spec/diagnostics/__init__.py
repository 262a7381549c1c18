"""Diagnostics with places, their rendering, and the catalogue of rules."""
