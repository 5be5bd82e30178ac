"""What is true: the events, the ledger that keeps them, and pure rules over them."""
