"""Stories of what is allowed, who is asked, what is switched off, and what untrusted words may not do."""

from __future__ import annotations

import asyncio
from typing import Any

from schedule_telling import Teller, script, story

from interlock.core.errors import ConfigError
from interlock.policy.switches import SwitchKind, SwitchScope

AGENT = {"budgets": {"max_seconds": 3600}, "max_refusals": None, "stop_on": ["cost_budget"]}


def make(teller: Teller, names: dict[str, str], config: dict[str, Any], **words: Any) -> tuple[Any, list[str]]:
    """Return a gate with tools of these names (`read`, `write`, `bare` for a write nobody can close); what was done."""
    gate = teller.gate(**{"agent": AGENT, **config})
    done: list[str] = []

    def add(name: str, kind: str) -> None:
        if kind == "bare":

            @gate.tool(name, effect="write", **words)
            async def bare(n: int = 0) -> str:
                done.append(name)
                return name

        elif kind == "write":

            @gate.tool(name, effect="write", **words)
            async def write(n: int = 0, *, idempotency_key: str) -> str:
                done.append(name)
                return name

        else:

            @gate.tool(name, effect="read", **words)
            async def read(n: int = 0) -> str:
                done.append(name)
                return name

    for name, kind in names.items():
        add(name, kind)
    return gate, done


def each(*names: str) -> list[list[tuple[str, dict[str, Any]]]]:
    return [[(name, {"n": n})] for n, name in enumerate(names)]


@story("globs and what they match")
async def globs(teller: Teller) -> None:
    names = (
        "db.read",
        "db.drop",
        "mail.send",
        "mail.send.bulk",
        "a",
        "ab",
        "abc",
        "x-y_z:1/2",
        "kb.v2.read",
        "kb.v10.read",
    )
    tools = dict.fromkeys(names, "read")
    for allow, deny in (
        (["*"], []),
        (["*"], ["*"]),
        (["*.read"], []),
        (["db.*", "mail.*"], ["*.drop", "mail.*.bulk"]),
        (["?", "??", "a?c"], []),
        (["kb.v?.read"], []),
        (["kb.*.re?d", "*a*l*d*"], []),
        (["*m*", "*-*_*:*"], []),
        (["**", "db.read"], ["db.read"]),
        (["*??*"], ["????"]),
        (["?*?*?*?*?*?*?*?"], []),
        (["*bc", "*b*", "a*", "ab*"], ["a"]),
        ([], []),
        (["*1*2*", "*read*read*"], []),
    ):
        gate, done = make(teller, tools, {"tools": {"allow": allow, "deny": deny}})
        seen: list[Any] = []
        await gate.run(script(teller, *each(*names), seen=seen, said=False))
        rules = [getattr(one.error, "details", {}).get("rule", "-") for one in seen]
        teller.say(allow, deny, "let through", done, rules)
        if deny == ["*"] or not allow:
            teller.expect("nothing", done, [])
    for pattern in ("", "a b", "x" * 129, "Ä*", "a[b]"):
        try:
            gate, _ = make(teller, {}, {"tools": {"allow": [pattern]}})
            await teller.run(gate, script(teller))
            teller.told.wrong.append(f"{pattern!r} is a glob")
        except ConfigError as error:
            teller.say(str(error))


@story("lists of the file, of a tenant, of a run and of a child")
async def lists(teller: Teller) -> None:
    names = {"a.read": "read", "a.put": "write", "b.read": "read", "b.put": "write", "c.post": "bare"}
    tenants = {
        "t": {"allow": ["a.*", "b.read"], "deny": ["a.put"]},
        "s": {"scopes": ["look"]},
        "n": {"scopes": []},
    }
    tools = {"allow": ["*"], "deny": ["c.*"], "scopes": {"b.*": ["look"], "b.put": ["look", "touch"]}}
    gate, done = make(teller, names, {"tools": tools, "tenants": tenants})
    for tenant_id, words in (
        ("x", {}),
        ("x", {"scopes": ["look"]}),
        ("x", {"scopes": ["look", "touch"], "allow": ["b.*"]}),
        ("x", {"allow": []}),
        ("x", {"allow": ["nothing"]}),
        ("t", {"scopes": ["look"]}),
        ("t", {"scopes": ["look"], "allow": ["*.read"]}),
        ("s", {"scopes": ["look", "touch"]}),
        ("n", {"scopes": ["look", "touch"]}),
    ):
        done.clear()
        teller.say("--", tenant_id, words)
        await teller.run(gate, script(teller, *each(*names, "d.read", "bad name")), tenant_id=tenant_id, **words)
        teller.say("done", done)
        if tenant_id == "t":
            teller.expect("a tenant's deny holds", "a.put" in done, False)
        if tenant_id in {"s", "n"}:
            teller.expect("its ceiling holds", "b.put" in done, False)

    async def parent(run: Any, task: Any) -> None:
        for allow in (["a.*"], ["*.put"], None):
            async with run.child(allow=allow) as child:
                await asyncio.gather(*(teller.use(child, name) for name in names))

    done.clear()
    await teller.run(gate, parent, scopes=["look"], allow=["*.read", "a.put"])
    teller.expect("what all of them permit", sorted(set(done)), ["a.put", "a.read", "b.read"])
    for bad in (["a b"], "a.read"):
        await teller.run(gate, script(teller, *each("a.read")), allow=bad)


@story("no file says what is allowed")
async def registered(teller: Teller) -> None:
    names = {"a.read": "read", "a.put": "write", "c.post": "bare"}
    gate, done = make(teller, names, {})

    @gate.tool("d.post", effect="write", allow=True)
    async def allowed() -> None:
        done.append("d.post")

    @gate.tool("e.post", effect="write", natural=True)
    async def natural() -> None:
        done.append("e.post")

    @gate.tool("f.post", effect="write", lookup=lambda: None)
    async def asked() -> None:
        done.append("f.post")

    @gate.tool("g.post", effect="write", on_unknown="tell")
    async def told() -> None:
        done.append("g.post")

    calls = [[(name, {})] for name in (*names, "d.post", "e.post", "f.post", "g.post", "h.post")]
    await teller.run(gate, script(teller, *calls))
    teller.expect("done", done, ["a.read", "a.put", "d.post", "e.post", "f.post"])


@story("many tenants' runs, each with a list of its own")
async def many_views(teller: Teller) -> None:
    gate, done = make(teller, {"a.read": "read"}, {"tools": {"allow": ["*"]}})
    for n in range(1_030):
        await gate.run(script(teller, said=False), allow=["a.*", f"x{n}"])
    await gate.run(script(teller, *each(*(f"name{n}" for n in range(40))), said=False))
    await teller.run(gate, script(teller, *each("a.read")), allow=["a.*", "x1"])
    teller.expect("done", done, ["a.read"])


@story("kills and safe mode")
async def switches(teller: Teller) -> None:
    names = {"a.read": "read", "a.put": "write", "b.read": "read"}
    cases = [
        (SwitchScope.GLOBAL, "", SwitchKind.KILL, None),
        (SwitchScope.TENANT, "default", SwitchKind.KILL, None),
        (SwitchScope.TENANT, "other", SwitchKind.KILL, None),
        (SwitchScope.AGENT, "a", SwitchKind.KILL, None),
        (SwitchScope.AGENT, "b", SwitchKind.KILL, None),
        (SwitchScope.TOOL, "a.*", SwitchKind.KILL, None),
        (SwitchScope.TOOL, "b.read", SwitchKind.KILL, 5.0),
        (SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE, None),
        (SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE, 2.0),
    ]
    for scope, subject, kind, for_s in cases:
        for mode in ("enforce", "observe"):
            config = {"mode": mode, "tools": {"allow": ["*"]}, "safe_mode": {"allowed_tools": ["b.*", "a.put"]}}
            gate, done = make(teller, names, config)
            store = gate.house().store
            expires_at = None if for_s is None else teller.clock.wall() + for_s
            await store.switches.set(scope, subject, kind, reason="why", actor="ada", expires_at=expires_at)
            teller.say("--", mode, str(scope), subject, str(kind), str(for_s))
            await teller.run(gate, script(teller, *each(*names)))
            await asyncio.sleep(6.0)
            await teller.run(gate, script(teller, *each(*names), said=False))
            await store.switches.lift(scope, subject, kind, reason="over", actor="ada")
            await asyncio.sleep(1.0)
            await gate.run(script(teller, *each(*names), said=False))
            teller.say("done", done)
            teller.expect("after it was lifted", done[-3:], list(names))


@story("a kill meets a run, its children and its attempts")
async def killed_meanwhile(teller: Teller) -> None:
    for scope, subject in ((SwitchScope.RUN, None), (SwitchScope.AGENT, "a/helper"), (SwitchScope.TOOL, "slow.*")):
        gate = teller.gate(agent=AGENT, tools={"allow": ["*"], "retries": {"max_attempts": 5, "backoff_ms": [4_000]}})
        tries: list[float] = []

        @gate.tool("slow.read", effect="read")
        async def slow(n: int, tries: list[float] = tries) -> str:
            tries.append(n)
            await asyncio.sleep(1.0)
            raise ConnectionResetError

        async def agent(run: Any, task: Any, gate: Any = gate, scope: Any = scope, subject: Any = subject) -> None:
            async def kill() -> None:
                await asyncio.sleep(2.5)
                named = run.run_id if subject is None else subject
                await gate.house().store.switches.set(scope, named, SwitchKind.KILL, reason="why", actor="ada")

            killing = asyncio.ensure_future(kill())
            async with run.child("helper") as child:
                await asyncio.gather(teller.use(child, "slow.read", n=1), teller.use(run, "slow.read", n=2))
                await teller.use(child, "slow.read", n=3)
            await teller.use(run, "slow.read", n=4)
            await killing

        await teller.run(gate, agent)
        teller.say(str(scope), "tried", tries)


@story("safe mode in the file, and no second attempt")
async def safe_mode(teller: Teller) -> None:
    gate = teller.gate(
        agent=AGENT,
        tools={"allow": ["*"], "retries": {"max_attempts": 3}},
        safe_mode={"enabled": True, "allowed_tools": ["a.*"]},
    )
    tries: list[int] = []

    @gate.tool("a.read", effect="read")
    async def read(n: int) -> str:
        tries.append(n)
        raise ConnectionResetError

    @gate.tool("b.read", effect="read")
    async def other(n: int) -> str:
        tries.append(100 + n)
        return "b"

    await teller.run(gate, script(teller, *each("a.read", "b.read")))
    teller.expect("tried", tries, [0])


@story("switches that cannot be read")
async def unreadable(teller: Teller) -> None:
    for mode in ("enforce", "observe"):
        gate, done = make(teller, {"a.read": "read", "a.put": "write"}, {"mode": mode, "tools": {"allow": ["*"]}})
        part = gate.house().store.switches

        async def agent(run: Any, task: Any, part: Any = part) -> None:
            n = 0
            for away_s in (0.0, 0.2, 1.0, 1.0, 3.0, 0.0):
                part.away = {"read"} if away_s else set()
                await asyncio.sleep(away_s)
                for name in ("a.read", "a.put"):
                    n += 1
                    began_s = teller.clock.monotonic()
                    await teller.use(run, name, n=n)
                    teller.say("waited", round(teller.clock.monotonic() - began_s, 3))

        await teller.run(gate, agent)
        teller.say("done", done)

        async def hangs(*_: Any) -> Any:
            await asyncio.sleep(100.0)

        part.read = hangs
        await asyncio.sleep(5.0)
        await teller.run(gate, script(teller, *each("a.read", "a.put", "a.read")))
        teller.expect("a write nobody could check", done.count("a.put") <= (4 if mode == "enforce" else 9), True)


@story("switches whose words are wrong")
async def wrong_switches(teller: Teller) -> None:
    gate, _ = make(teller, {}, {})
    store, now = gate.house().store, teller.clock.wall()
    fine: dict[str, Any] = {"reason": "why", "actor": "ada"}
    for scope, subject, kind, words in (
        ("nowhere", "", "kill", fine),
        ("global", "", "pause", fine),
        ("global", "", "kill", {"reason": " ", "actor": "ada"}),
        ("global", "", "kill", {"reason": "why", "actor": ""}),
        ("global", "all", "kill", fine),
        ("tenant", " ", "kill", fine),
        ("tenant", "t", "safe_mode", fine),
        ("tool", "a b", "kill", fine),
        ("tool", "a.*", "kill", {**fine, "expires_at": now - 1}),
        ("tool", "a.*", "kill", {**fine, "expires_at": now}),
        ("tool", " a.* ", "kill", {**fine, "expires_at": now + 9}),
    ):
        try:
            teller.say("set", str(await store.switches.set(scope, subject, kind, **words)))
        except ConfigError as error:
            teller.say(str(error))
    for scope in ("tool", "tenant"):
        teller.say("lifted", str(await store.switches.lift(scope, "a.*", "kill", reason="over", actor="ada")))
