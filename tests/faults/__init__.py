"""Faults by force: kills, power cuts, failing disks, damaged files, hostile input.

A short form of each runs with the suite. ``python -m tests.faults`` runs the long campaigns and prints a table.
"""
