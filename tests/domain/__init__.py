"""What is true: tests of the ground floor, one module for each of its modules."""
