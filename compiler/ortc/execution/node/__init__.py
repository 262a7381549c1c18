"""Bundles for Node, run by this machine's Node through the protocol that every worker speaks."""
