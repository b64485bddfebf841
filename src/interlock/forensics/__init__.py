"""Recorded runs: readers, and the live funnel driven by them."""
