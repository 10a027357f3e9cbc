"""The foundations of the package, independent of any loss and engine."""
