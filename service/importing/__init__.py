"""Conversations from elsewhere: each format has a module that reads it, and one module records what was read."""
