"""Artifacts that stages hand on, and their form on disk."""
