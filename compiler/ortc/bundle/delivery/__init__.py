"""Delivery of bundles: Kubernetes manifests, archives and OCI layouts."""
