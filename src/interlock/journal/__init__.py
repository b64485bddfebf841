"""Has it been done: one effect per key, one run per request."""
