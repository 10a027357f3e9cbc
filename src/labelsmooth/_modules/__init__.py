"""The losses as modules: a set of options, and one call."""
