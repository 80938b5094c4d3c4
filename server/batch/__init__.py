"""Batches of dialogues: what holds them, where, what is kept of them, and what is made of that."""
