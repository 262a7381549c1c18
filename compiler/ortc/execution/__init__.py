"""Execution and memory of work: action cache, workers, runtime environments, this host."""
