"""Engines find the row statistics of logits; the formulas above them do not know which one did."""
