"""Running QEMUs, over their QMP sockets (the `RunningMachines` port)."""
