"""Where the bytes go, and what is shared."""
