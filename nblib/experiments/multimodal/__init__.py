"""Several sessions at once: what is asked of their models (12), and how the answers are judged."""
