"""The model as PyTorch runs it: loading, exporting, reference outputs and eager timings.

Everything here runs in a process of its own (`python -m ortc.frontend`), so that the compiler never loads torch, a
crash in a user's module cannot take the build along, and memory is returned when the process ends.
"""
