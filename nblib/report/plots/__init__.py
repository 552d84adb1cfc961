"""Figures, one module a stage. Each function takes arrays or tables and returns a Figure.

A figure shows itself as the last line of a notebook cell; `save_svg(fig, path)` keeps it for a
paper. Colours are safe for colour-blind readers and every brain area has its own, everywhere.
"""

from nblib.report.plots import potentials
from nblib.report.plots.best import best_per_recording
from nblib.report.plots.carriers import importance
from nblib.report.plots.comparison import compare_runs
from nblib.report.plots.decoding import accuracy_by_time, confusion, learning_curves, score_summary
from nblib.report.plots.few_shot import draws_spread, few_shot_curves
from nblib.report.plots.looks import (
    average_response,
    label_differences,
    recording_close_up,
    recording_overview,
)
from nblib.report.plots.network import graph_overview
from nblib.report.plots.pictures import drawn_images, found_images, space_comparison
from nblib.report.plots.removal import quality, removals
from nblib.report.plots.responses import psth_by_area, tuning_heatmap, unit_response
from nblib.report.plots.roles import correlation, label_balance, split_timeline
from nblib.report.plots.search import search_history, search_settings
from nblib.report.plots.session import raster, session_overview
from nblib.report.plots.ssl import budget_curves, class_curves, embedding_map, neighbour_purity
from nblib.report.plots.style import area_colour, label_text, png_bytes, save_svg, say, use_style
from nblib.report.plots.tradeoff import score_against

__all__ = [
    "accuracy_by_time",
    "area_colour",
    "average_response",
    "best_per_recording",
    "budget_curves",
    "class_curves",
    "compare_runs",
    "confusion",
    "correlation",
    "drawn_images",
    "draws_spread",
    "embedding_map",
    "few_shot_curves",
    "found_images",
    "graph_overview",
    "importance",
    "label_balance",
    "label_differences",
    "label_text",
    "learning_curves",
    "neighbour_purity",
    "png_bytes",
    "potentials",
    "psth_by_area",
    "quality",
    "raster",
    "recording_close_up",
    "recording_overview",
    "removals",
    "save_svg",
    "say",
    "score_against",
    "score_summary",
    "search_history",
    "search_settings",
    "session_overview",
    "space_comparison",
    "split_timeline",
    "tuning_heatmap",
    "unit_response",
    "use_style",
]
