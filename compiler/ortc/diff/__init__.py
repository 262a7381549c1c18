"""`ortc diff`: what changes between two bundles, or between two states of a spec."""
