"""What models of spikes read: distances to spikes, and what is known at a moment."""
