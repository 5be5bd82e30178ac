"""``opm``: what an operator, an auditor and a researcher do with a ledger, from the command line.

Every command is a module of its own with one function, registered in :mod:`service.cli.main`. All of them share the
rules of :mod:`service.cli.shell`: results go to standard output (``--json``: one JSON document), everything else to
standard error, and the exit status says how it went.
"""
