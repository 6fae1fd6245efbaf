"""The image is built and run by ``make image`` alone: it takes minutes, root, podman, and a network namespace of its own."""

import os
from typing import Final

WANTED: Final = "HOLDFAST_IMAGE"
"""Set by ``make image``."""

collect_ignore = [] if os.environ.get(WANTED) else ["test_container.py"]
