"""Running QEMUs, over their QMP sockets (the `Machines` port)."""
