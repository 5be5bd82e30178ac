"""Whether what was derived still says what the ledger says, and the first place where it does not."""
