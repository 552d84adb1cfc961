"""Field potentials as samples: windows with the state of each, and their power by frequency."""
