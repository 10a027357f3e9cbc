"""Metrics as functions from the evidence of one run to the numbers of its rows whose mean is the metric."""
