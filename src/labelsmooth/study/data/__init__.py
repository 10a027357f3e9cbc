"""Training data: the study's digits, and the user's data."""
