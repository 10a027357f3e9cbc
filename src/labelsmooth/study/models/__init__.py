"""Models of the fits that a study brings along."""
