"""Exact searches for near rows: the nearest of each query, and all pairs that are close."""
