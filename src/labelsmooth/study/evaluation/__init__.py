"""What is to be said of predictions by themselves: how often they are right, and how far to be trusted."""
