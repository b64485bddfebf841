"""Will it survive the tool: retry, breaker, limits, timeouts, classification of failures."""
