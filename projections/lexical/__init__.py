"""Memory by words: every user's full-text index, how text is split for it, and how it follows the ledger."""
