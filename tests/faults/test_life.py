"""A short form of :mod:`tests.faults.life`; the long one is a campaign of ``python -m tests.faults``."""

from __future__ import annotations

from hypothesis import settings

from tests.faults.life import Life

TestLife = Life.TestCase
TestLife.settings = settings(max_examples=5, stateful_step_count=25, deadline=None)
