"""Indices built anew beside the live ones: planned, built, checked, made active, and pruned."""
