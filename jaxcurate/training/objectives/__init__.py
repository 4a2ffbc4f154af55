"""Objectives of pretraining, one in each file."""
