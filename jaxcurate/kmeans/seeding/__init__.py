"""Initial centroids: k-means++ and k-means||."""
