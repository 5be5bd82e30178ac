"""Texts to vectors: the endpoints that embed, which model is active for whom, and a cache of what was embedded."""
