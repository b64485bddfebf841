"""Faults, and the drill. Ships with the product."""
