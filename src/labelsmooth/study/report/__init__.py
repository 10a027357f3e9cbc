"""What a person sees: the page, its pictures, the terminal, the progress."""
