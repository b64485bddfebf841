"""The call: the funnel, and the one way to a tool."""
