"""What a version is made from."""
