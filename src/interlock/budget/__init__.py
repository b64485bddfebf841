"""Can we afford it, and is it getting anywhere: meters, prices, loops."""
