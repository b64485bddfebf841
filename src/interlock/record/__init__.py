"""What is written down: one structured record per run, redacted, to several sinks."""
