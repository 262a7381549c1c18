"""The plan: a valid spec with every default filled in, or every reason why there is none."""
