"""A search for settings: what is asked, its trials, what they found."""
