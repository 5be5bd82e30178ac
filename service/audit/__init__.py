"""Audit tools: explain one answer, recall memory as of an earlier position, replay past questions."""
