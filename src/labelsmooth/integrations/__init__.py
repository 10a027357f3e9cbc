"""Smoothing within other people's training: one module for each framework, and an extra of that name."""
