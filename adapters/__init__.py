"""Everything that touches the world: processes, files, file systems, the catalog, the command
line."""
