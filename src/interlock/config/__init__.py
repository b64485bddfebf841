"""The YAML as types, and the only place where parts are wired."""
