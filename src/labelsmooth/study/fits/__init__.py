"""Fits: the criterion, the result, and the built-in fits."""
