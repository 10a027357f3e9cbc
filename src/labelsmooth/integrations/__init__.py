"""Label smoothing in training frameworks: a module and an extra of the same name for each."""
