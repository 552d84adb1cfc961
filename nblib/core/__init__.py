"""What everything stands on: errors, typed parameters, recipes, the store of artifacts."""
