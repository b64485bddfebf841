"""A plain Celery queue around the agent of `process_agent.py`: messages are files in a folder, and there is no server.

`work` is a worker of it; `send MESSAGES` puts messages in. Nothing in it knows of duplicates: `gate.handler` does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from celery import Celery
from process_agent import agent, gate

FOLDER = Path(os.environ["QUEUE"])
app = Celery("proof", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(FOLDER / "queue"),
        "data_folder_out": str(FOLDER / "queue"),
        "control_folder": str(FOLDER / "control"),
    },
    worker_hijack_root_logger=False,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@gate.handler(request_id="id")
async def handle(run, message):
    return await agent(run, message)


@app.task(name="handle")
def on_message(message):
    result = handle.sync(message)
    with (FOLDER / "delivered").open("a") as delivered:
        delivered.write(f"{message['id']} {result.reason} {result.output}\n")


if __name__ == "__main__":
    if sys.argv[1] == "work":
        app.worker_main(
            ["worker", "--pool=threads", "--concurrency=3", "--without-gossip", "--without-mingle", "--loglevel=ERROR"]
        )
    else:
        for one in json.loads(sys.argv[2]):
            on_message.delay(one)
