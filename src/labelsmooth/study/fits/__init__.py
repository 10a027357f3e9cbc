"""A fit: what it is given, what it returns, and the study's own."""
