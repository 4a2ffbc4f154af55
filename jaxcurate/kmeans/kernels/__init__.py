"""Kernels that run on the device for each block of rows: scores and sums, for each backend."""
