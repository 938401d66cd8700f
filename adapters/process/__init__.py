"""Other programs and processes: how they are started, confined, measured."""
