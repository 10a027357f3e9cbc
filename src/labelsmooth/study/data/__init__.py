"""Data that a study brings along."""
