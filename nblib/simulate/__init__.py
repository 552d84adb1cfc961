"""Simulators: each a data source whose truth is known, and the best score that anyone could reach on it."""
