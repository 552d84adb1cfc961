"""Images found and drawn from spikes: 10."""
