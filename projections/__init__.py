"""What can be thrown away: views that are built from the ledger and can be built again."""
