"""Lexical search: a full-text index for each user, its text analysis, and the projection that fills it."""
