"""One module per origin of recordings: files in, one recording session on one clock out."""
