"""What was on screen, and what the next bins will hold: 11."""
