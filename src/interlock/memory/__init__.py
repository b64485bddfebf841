"""What agents remember: scoped, dated, labelled facts, and what may be kept of a run's validated output."""
