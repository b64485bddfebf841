"""Lets the tests of this folder import `pages`, which reads the documentation, and the generator of the reference."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tools")]
