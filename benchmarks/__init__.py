"""What Interlock costs: measured, never asserted by a timed test. `python -m benchmarks` prints one table."""
