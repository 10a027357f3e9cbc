"""Targets, priors and strengths, as tensors that correspond to the rows of the logits."""
