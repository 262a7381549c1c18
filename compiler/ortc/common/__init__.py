"""Values, digests, errors, units, arrays and disks, which every room uses."""
