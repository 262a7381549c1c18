"""The bundle's server: the Open Inference Protocol v2 around the models that loader.py loads."""
