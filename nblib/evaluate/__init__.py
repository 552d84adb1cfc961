"""Scores with interval, chance and p; importance; retrieval."""
