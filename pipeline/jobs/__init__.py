"""What can be asked for, and in what order it happens."""
