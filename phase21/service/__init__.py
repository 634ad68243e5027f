"""Builds the house, starts it, drains it, closes it; decides nothing."""
