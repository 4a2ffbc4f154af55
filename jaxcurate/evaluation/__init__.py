"""Comparison of subsets by pretraining and probes, and measures of how balanced they are."""
