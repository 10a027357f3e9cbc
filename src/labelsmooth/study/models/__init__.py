"""The built-in models of a study."""
