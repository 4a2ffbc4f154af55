"""The method on arrays: hierarchical k-means, balanced sampling, and what goes with them."""
