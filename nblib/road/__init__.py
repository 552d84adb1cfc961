"""The order of the notebooks: what each rests on, its key, and the stage as a notebook meets it."""
