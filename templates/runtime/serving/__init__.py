"""The bundle's server: the Open Inference Protocol v2 around the models that loader.py loads."""

import os

VERSION = "0.1.0"  # of ortc, whose server this is

# What clients do wrong gRPC would write to stderr itself, beside the log and without end; it asks when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
