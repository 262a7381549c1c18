"""The language of specs and profiles, from text with places to frozen values."""
