"""May this happen: allow lists, switches, approvals."""
