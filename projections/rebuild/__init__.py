"""Rebuilds indices beside the live ones: the command, its plan, a generation, its processes, and pruning."""
