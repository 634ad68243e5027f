"""Workflows: what they decide on the way, and how a goal becomes one."""
