"""Tables of trials: their columns, their intervals, their labels, and which of them count."""
