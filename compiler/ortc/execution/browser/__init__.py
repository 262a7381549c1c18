"""Bundles for browsers, run in headless Chromium through the protocol that every worker speaks."""
