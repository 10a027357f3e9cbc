"""What a fit trains on: data that a study brings along, and the user's own."""
