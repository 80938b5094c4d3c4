"""The operations: each is defined once, and every door is made from it."""
