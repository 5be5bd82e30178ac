"""``opm``: the command line for operators, auditors and researchers.

Every command is one function, registered in :mod:`service.cli.main`. All follow the rules of :mod:`service.cli.shell`:
results go to standard output (``--json``: one JSON document), everything else to standard error, and the exit status
reports success.
"""
