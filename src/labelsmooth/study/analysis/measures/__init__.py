"""Metrics as functions: of the evidence of one run, the numbers of its rows whose mean the metric is."""
