"""Saved states: a world as it was, in SQL and in a file."""
