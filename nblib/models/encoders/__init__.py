"""Models that predict spikes from a stimulus and from spikes before, and trains from what they say."""
