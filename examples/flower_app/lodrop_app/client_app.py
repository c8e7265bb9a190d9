"""A device: says how it stands, trains its sub-adapter, returns its slices; or crashes, or is late."""

from __future__ import annotations

import time

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from edgealloc.flower import answer_state, answer_update, read_assignment, train_task
from lodrop_app.cell import name_of, options_of, state_of, task_of

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer how the device stands."""
    config, k = context.run_config, int(context.node_config["partition-id"])
    task = task_of(int(config["devices"]), int(config["seed"]))
    number = int(message.content.config_records["config"]["server-round"])
    return answer_state(message, name_of(k), state_of(task, k, number, int(config["seed"])))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train what the server sent."""
    config, k = context.run_config, int(context.node_config["partition-id"])
    task = task_of(int(config["devices"]), int(config["seed"]))
    assignment = read_assignment(message, task.initial)
    if (k, assignment.round_number) == (config["crash-device"], config["crash-round"]):
        raise RuntimeError("battery empty")
    if (k, assignment.round_number) == (config["late-device"], config["late-round"]):
        time.sleep(float(config["timeout-s"]) + 1.0)
    with task.feed.shortcuts():
        trained, loss = train_task(task, k, assignment, options_of(config))
    return answer_update(message, assignment, trained, len(task.devices[k]), {"loss": loss})
