"""The dense index: Chroma or exact scoring, in step with the vectors in SQL."""
