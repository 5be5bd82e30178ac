"""A second copy of the ledger as one JSONL file per conversation, and the way back to a ledger."""
