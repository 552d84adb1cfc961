"""Models of several sessions that decode, encode and impute: linear ones, and one masked network."""
