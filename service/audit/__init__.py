"""Answers of the past: explained, searched for again, and put through other settings."""
