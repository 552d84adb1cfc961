"""What notebooks 05 to 11 call, one question each."""
