"""The run: opened, driven, stopped; always answered with a RunResult."""
