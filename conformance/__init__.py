"""The conformance matrix: one set of scenarios, run through every agent framework, bare and under Interlock.

    make conformance                            the whole matrix
    make conformance ARGS="--only pydantic-ai"  one framework, beside the hand-written loop
    make conformance ARGS=--json                one line a cell

column.py     what a framework brings: how to run an agent bare, and how under a gate
columns/      one file a framework
model.py      the scripted model as an HTTP server: OpenAI chat and responses, Anthropic messages
world.py      the remote that counts what happened, and loses answers on purpose
scenarios.py  the scenarios, as data
player.py     plays scenarios through one column, in a process of its own
judge.py      what a cell says
matrix.py     the whole of it: processes, table, page, exit code
"""
