"""Training runs: their claims, their files and their workers."""
