"""Words only: reasons, errors, calls, canonical JSON and hashes, clock. Imports no other folder of ours."""
