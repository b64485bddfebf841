"""Interlock stands between an AI agent and the world."""
