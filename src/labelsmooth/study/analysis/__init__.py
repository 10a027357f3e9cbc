"""From logits to numbers with intervals, and from those to a verdict."""
