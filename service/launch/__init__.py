"""What `make run` starts, watches and stops."""
