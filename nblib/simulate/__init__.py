"""Recordings with a known truth, and the best score that anyone could reach on them."""
