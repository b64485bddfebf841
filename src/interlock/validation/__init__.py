"""Is it well formed: arguments in, outputs back, invariants."""
