"""The exact nearest centroid of each row, with as few distances as bounds allow."""
