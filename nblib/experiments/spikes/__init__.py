"""Spikes predicted, trains inferred, cells grouped (13)."""
