"""Devices, processes and progress: where a run runs, and how its processes watch each other."""
