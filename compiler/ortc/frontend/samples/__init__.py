"""Inputs for every case, from real samples or seeded numbers."""
