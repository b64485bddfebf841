"""What the agents of `everything_*` have in common: the tools of the shipped suite's agent, and its model's words.

Their models are functions of this process, so that the suite's virtual clock holds. A framework's agent does not raise
what its tools said: it tells its model, and goes on.
"""

from __future__ import annotations

from typing import Any

from interlock.chaos import everything_agent as shop

TOOLS = {
    "search.read": shop.search,
    "kb.read": shop.article,
    "price.read": shop.price,
    "ticket.create": shop.create_ticket,
    "invoice.send": shop.send_invoice,
    "parcel.send": shop.send_parcel,
    "refund.create": shop.refund,
    "db.write": shop.write_row,
}


async def thought(task: dict[str, Any], turn: int, said: list[str]) -> dict[str, Any]:
    """Return what the suite's scripted model would say."""
    if turn > int(task.get("turns", 1)):
        return await shop.think({"do": []}, 0, [])
    return await shop.think(task, turn, [text[: shop.SHOWN_CHARACTERS] for text in said])
