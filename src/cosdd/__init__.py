"""Placeholder until the public surface exists."""
