"""Objectives of pretraining, one a file."""
