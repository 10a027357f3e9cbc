"""What everything here stands on: it knows of no loss and of no engine."""
