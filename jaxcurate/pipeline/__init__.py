"""A run over one work directory: its stages, in order."""
