"""``python -m projections.rebuild``."""

import gc
import sys

from projections.rebuild.command import main
from projections.rebuild.processes import ALLOCATIONS_PER_COLLECTION

if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(ALLOCATIONS_PER_COLLECTION)
    sys.exit(main())
