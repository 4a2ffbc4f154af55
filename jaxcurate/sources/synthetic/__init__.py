"""Pools that are made: the web-like pool from raw images, and simulated points."""
