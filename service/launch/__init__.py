"""`make run`: start, watch and stop the programs of the product."""
