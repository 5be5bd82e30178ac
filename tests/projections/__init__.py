"""What can be thrown away: tests of the projections, one module for each of theirs."""
