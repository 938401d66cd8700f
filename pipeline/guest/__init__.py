"""What generalizing a guest means: the operations, the profiles that choose among them, the
checks."""
