"""The models that a study trains by itself."""
