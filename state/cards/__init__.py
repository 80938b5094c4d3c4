"""Character cards: their files, their fields, and what a persona is made of."""
