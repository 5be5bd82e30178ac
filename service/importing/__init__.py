"""Import conversations: one module parses each format, and `record` writes the result to the ledger."""
