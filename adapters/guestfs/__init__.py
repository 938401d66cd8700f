"""Guests through libguestfs: its bindings run in a helper process, in the sandbox."""
