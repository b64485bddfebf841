"""Faults, and the drill: the article's incidents, made to happen. Ships with the product."""
