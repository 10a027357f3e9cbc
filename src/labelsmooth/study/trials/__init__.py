"""Training runs: which are done, by whom, and where their tensors are."""
