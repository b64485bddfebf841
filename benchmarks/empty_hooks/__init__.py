"""Each framework's agent with the hooks that our adapter has in it, and nothing in them: one file a framework.

What a framework asks of any hook in these places is thereby known: it is measured beside the agent without hooks,
and beside the guarded one. Hooks are written the way ours are, that is the way each framework calls at least cost.
"""
