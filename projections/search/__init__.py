"""The door to both indices: a question goes in, ranked candidates come out, today or at a position of the past."""
