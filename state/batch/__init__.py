"""Batches of dialogues as values: what is asked for, what came of it, and what that says."""
