"""The bundle's server: the Open Inference Protocol v2 around the models that loader.py loads."""

VERSION = "0.1.0"  # of ortc, whose server this is
