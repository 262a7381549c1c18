"""Judgement of a variant: accuracy, latency, gates, and the values of the report."""
