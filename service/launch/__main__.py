"""``python -m service.launch``."""

import sys

from service.launch.command import main

if __name__ == "__main__":
    sys.exit(main())
