"""The ledger once more, as JSONL files per conversation, and the way back."""
