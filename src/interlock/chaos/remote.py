"""The backend's operations as plain functions: what both sides of the drill call their tools."""

from __future__ import annotations

from typing import Any

from interlock.chaos.http_client import HttpClient

__all__ = ["Remote"]


class Remote:
    """Operations of one backend.

    Args:
        client: Where it is.

    Raises:
        OSError, HttpStatusError: See `http_client`.
    """

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def create_ticket(
        self, project: str, title: str, description: str, idempotency_key: str | None = None
    ) -> Any:
        """Create a ticket; with a key, at most one."""
        body = {"project": project, "title": title, "description": description}
        if idempotency_key is not None:
            body["idempotency_key"] = idempotency_key
        return (await self._client.request("POST", "/tickets", body=body)).body

    async def write_row(self, project: str, table: str, values: dict[str, Any]) -> Any:
        """Write to the database."""
        body = {"project": project, "table": table, "values": values}
        return (await self._client.request("POST", "/rows", body=body)).body

    async def send_email(self, project: str, to: str, text: str) -> Any:
        """Send an e-mail."""
        return (await self._client.request("POST", "/emails", body={"project": project, "to": to, "text": text})).body

    async def search(self, query: str, page: int = 1) -> Any:
        """Search the web."""
        return (await self._client.request("GET", "/search", query={"query": query, "page": str(page)})).body

    async def fetch(self, url: str) -> Any:
        """Fetch a page."""
        return (await self._client.request("GET", "/pages", query={"url": url})).body

    async def article(self, project: str, topic: str) -> Any:
        """Read the knowledge base."""
        return (await self._client.request("GET", "/articles", query={"project": project, "topic": topic})).body

    async def effects(self, project: str) -> list[dict[str, Any]]:
        """Return what has happened in a project, as the backend lists it; each has id, kind, subject and key.

        Raises:
            LookupError, TypeError: What it lists is not that.
        """
        body = (await self._client.request("GET", "/effects", query={"project": project})).body
        # One's own server may not know projects: it lists everything, and the filter is here.
        found = [e for e in body["effects"] if e["project"] == project]
        return [{"key": None} | e | {"id": e["id"], "kind": e["kind"], "subject": e["subject"]} for e in found]
