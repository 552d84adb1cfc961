"""What notebooks 05 to 10 call, one question each."""
