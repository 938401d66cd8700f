"""qemu: its programs, its disks over NBD, its machines."""
