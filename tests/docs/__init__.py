"""The documentation: what of it is made from the code, and how its commands are run."""
