"""Synthetic pools: the web-like pool, composed of raw images, and simulated points."""
