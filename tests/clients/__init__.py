"""Real clients, each in an environment of its own, in front of a running service: ``python -m tests.clients``.

Outside the short suite, since it installs them. What they send was recorded with ``--record`` and is replayed by
``tests/service/api/test_recorded_clients.py``.
"""
