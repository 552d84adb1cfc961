"""Notebooks run one by one or many at once, sweeps, searches, clusters, and looking after them."""
