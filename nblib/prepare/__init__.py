"""From a recording to samples: counts, cleaning, roles and statistics of train, windows."""
