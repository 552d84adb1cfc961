"""Scores with interval, chance and p, a module for what is scored; importance; the result of an experiment."""
