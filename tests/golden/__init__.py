"""Ledgers as each released schema wrote them, kept to be opened, verified and rebuilt by all code to come."""
