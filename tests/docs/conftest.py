"""Lets the tests of this folder import `pages`, which reads the documentation for them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
