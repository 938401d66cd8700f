"""Resources beside galleries that versions are made from: disks, snapshots and managed images."""
