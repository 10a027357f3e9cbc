"""The report, its charts, the terminal output and the progress."""
