"""Analysis: metrics with intervals from logits, and the verdict from the metrics."""
