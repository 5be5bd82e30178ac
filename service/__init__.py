"""What clients talk to: one chat turn, its model calls, background summaries, HTTP and settings."""
