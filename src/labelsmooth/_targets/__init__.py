"""What logits are held to: labels, priors and strengths, as tensors one row of which serves one row."""
