"""Where it is kept. Only config names a store."""
