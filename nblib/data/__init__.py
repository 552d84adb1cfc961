"""Data sources, one module per origin of recordings: files in, one session on one clock out."""
