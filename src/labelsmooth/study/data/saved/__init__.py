"""Predictions that some program has saved, read and paired."""
