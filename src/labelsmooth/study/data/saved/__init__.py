"""Reading and pairing of saved predictions."""
