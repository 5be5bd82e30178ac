"""Memory by meaning: every user's FAISS index, its files, and how it follows the ledger."""
