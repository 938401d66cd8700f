"""Deploying: disks and descriptions of new VMs from a version, their release, and scale sets."""
