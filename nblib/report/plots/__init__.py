"""Figures, a module for what is shown: a recording, responses, one run, all runs, budgets, and so on.

Each function takes arrays or tables and returns a Figure. It shows itself as the last line of a
notebook cell; `fig.savefig("figure.svg")` keeps it for a paper. Colours are safe for colour-blind readers
and every brain area has its own, everywhere. A notebook imports the module of what it shows.
"""

from nblib.report.plots.style import area_colour, label_text, png_bytes, say

__all__ = ["area_colour", "label_text", "png_bytes", "say"]
