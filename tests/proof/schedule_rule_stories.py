"""Stories of rules at their edges: approvals to the second, switches to the quarter of one, names and words by length."""

from __future__ import annotations

import asyncio
from typing import Any

from schedule_policy_stories import AGENT, each, make
from schedule_taint_stories import make as mail_of
from schedule_telling import Teller, script, story

from interlock.core.errors import ConfigError
from interlock.policy.switches import SwitchKind, SwitchScope

ALL: dict[str, Any] = {"tools": {"allow": ["*"]}}


@story("an approval is good up to a second, and not in it")
async def to_the_second(teller: Teller) -> None:
    for wait_s, expires_s, after_s in (
        (6, 6, None),
        (5, 6, None),
        (9, 6, 5.75),
        (9, 6, 6.0),
        (9, 6, 6.25),
        (0, 6, None),
    ):
        for kind in ("write", "read"):
            config = {**ALL, "approvals": {"wait_s": wait_s, "expires_s": expires_s}}
            gate, done = make(teller, {"a.do": kind}, config, approval="required")

            async def decide(gate: Any = gate, after_s: Any = after_s) -> None:
                await asyncio.sleep(after_s)
                for row in await gate.house().store.approvals.list(state=None):
                    decided = await gate.house().store.approvals.decide(row.id, True, "ada")
                    teller.say("decided", str(decided and decided.state))

            teller.say("--", kind, wait_s, expires_s, after_s)
            deciding = None if after_s is None else asyncio.ensure_future(decide())
            await teller.run(gate, script(teller, *each("a.do")))
            if deciding is not None:
                await deciding
            teller.expect("done", len(done), int(after_s == 5.75))


@story("a grant is good for as long again, and not for longer")
async def as_long_again(teller: Teller) -> None:
    for later_s, times in ((5.75, 1), (6.0, 0)):
        config = {**ALL, "approvals": {"wait_s": 1, "expires_s": 6}}
        gate, done = make(teller, {"a.do": "write"}, config, approval="required")
        await teller.run(gate, script(teller, *each("a.do")), request_id="r")
        await asyncio.sleep(2.0)
        for row in await gate.house().store.approvals.list():
            await gate.house().store.approvals.decide(row.id, True, "ada")
        await asyncio.sleep(later_s)
        await teller.run(gate, script(teller, *each("a.do")), request_id="r", retry="resume")
        teller.expect("done", len(done), times)


@story("one is asked no longer than a run may take")
async def until_the_deadline(teller: Teller) -> None:
    async def never(call: Any) -> bool:
        await asyncio.sleep(1_000.0)
        return True

    for approval in ("required", never):
        for wait_s in (3, 30):
            agent = {**AGENT, "budgets": {"max_seconds": 10}}
            config = {**ALL, "agent": agent, "approvals": {"wait_s": wait_s, "expires_s": 60}}
            gate, done = make(teller, {"a.do": "write"}, config, approval=approval)
            await teller.run(gate, script(teller, *each("a.do")))
            teller.expect("done", done, [])


@story("how old the switches may be that a call goes by")
async def how_old(teller: Teller) -> None:
    for kill in (False, True):
        gate, _ = make(teller, {"a.read": "read", "a.put": "write"}, ALL)
        part = gate.house().store.switches
        read = part.read
        if kill:
            await part.set(SwitchScope.TOOL, "other.*", SwitchKind.KILL, reason="why", actor="ada")

        async def reads(read: Any = read) -> Any:
            teller.say("the switches are read")
            return await read()

        part.read = reads

        async def agent(run: Any, task: Any) -> None:
            for n, wait_s in enumerate((0.0, 0.25, 0.25, 0.125, 0.125, 0.125, 0.5, 0.2578125)):
                await asyncio.sleep(wait_s)
                await teller.use(run, "a.read", n=n)

        await teller.run(gate, agent)


@story("how long switches that cannot be read are gone by")
async def how_long(teller: Teller) -> None:
    for mode in ("enforce", "observe"):
        for age_s, refused in ((1.75, False), (2.0, False), (2.25, mode == "enforce")):
            gate, done = make(teller, {"a.read": "read", "a.put": "write"}, {"mode": mode, **ALL})
            part = gate.house().store.switches

            async def agent(run: Any, task: Any, part: Any = part, age_s: float = age_s) -> None:
                await teller.use(run, "a.read", n=0)
                part.away = {"read"}
                await asyncio.sleep(age_s)
                await teller.use(run, "a.put", n=1)
                await teller.use(run, "a.read", n=2)
                part.away = set()
                await asyncio.sleep(0.5)
                await teller.use(run, "a.put", n=3)

            await teller.run(gate, agent)
            teller.expect("refused", "a.put" not in done[1:2], refused)


@story("switches that take their time")
async def slow_switches(teller: Teller) -> None:
    for slow_s in (0.25, 1.5, 1.75, 2.0, 9.0):
        gate, done = make(teller, {"a.read": "read", "a.put": "write"}, ALL)
        part = gate.house().store.switches
        read = part.read
        under_way: list[int] = []

        async def slowly(read: Any = read, slow_s: float = slow_s, under_way: list[int] = under_way) -> Any:
            under_way.append(1)
            teller.say("the switches are read", len(under_way))
            try:
                await asyncio.sleep(slow_s)
                return await read()
            finally:
                under_way.pop()

        async def agent(run: Any, task: Any, part: Any = part) -> None:
            await teller.use(run, "a.read", n=0)
            await asyncio.sleep(1.0)
            part.read = slowly
            await asyncio.gather(teller.use(run, "a.put", n=1), teller.use(run, "a.read", n=2))
            await asyncio.sleep(0.125)
            await teller.use(run, "a.read", n=3)
            await asyncio.sleep(3.0)
            await teller.use(run, "a.put", n=4)

        await teller.run(gate, agent)
        teller.say("slow", slow_s, done, "still under way", len(under_way))


@story("a kill meets what the store is asked meanwhile")
async def kill_meanwhile(teller: Teller) -> None:
    gate, done = make(teller, {"a.read": "read", "a.put": "write"}, ALL)
    part = gate.house().store.switches
    read, slow = part.read, [3.0, 0.0]

    async def first_slow() -> Any:
        found = await read()
        await asyncio.sleep(slow.pop(0) if slow else 0.0)
        return found

    async def agent(run: Any, task: Any) -> None:
        await teller.use(run, "a.read", n=0)
        part.read = first_slow
        await asyncio.sleep(1.0)
        calling = asyncio.ensure_future(teller.use(run, "a.read", n=1))
        await asyncio.sleep(1.0)
        await part.set(SwitchScope.TOOL, "a.*", SwitchKind.KILL, reason="why", actor="ada", expires_at=None)
        await teller.use(run, "a.read", n=2)
        await calling
        for n in range(3, 8):
            await asyncio.sleep(0.5)
            await teller.use(run, "a.read", n=n)

    await teller.run(gate, agent)
    teller.expect("done at the end", len(done) < 5, True)


@story("a tool that nobody registered, where nothing is refused")
async def nobody_registered(teller: Teller) -> None:
    for mode in ("enforce", "observe"):
        for deny in ([], ["x.*"]):
            config = {"mode": mode, "tools": {"allow": ["*"], "deny": deny}}
            gate, _ = make(teller, {"a.read": "read"}, config)
            seen: list[Any] = []
            await teller.run(
                gate, script(teller, *each("x.read", "a.read", "no name", "x" * 129, "y" * 128), seen=seen)
            )
            teller.expect("refused", [one.ok for one in seen], [False, True, False, False, False])


@story("names as long as may be")
async def long_names(teller: Teller) -> None:
    names = ("a" * 127, "a" * 128, "b" * 64 + "." + "c" * 63)
    gate, done = make(teller, dict.fromkeys(names, "read"), {"tools": {"allow": ["a" * 126 + "?*", "*." + "c" * 63]}})
    await gate.run(script(teller, *each(*names), said=False))
    teller.expect("done", [len(name) for name in done], [127, 128, 128])
    for length in (127, 128, 129):
        try:
            make(teller, {"d" * length: "read"}, {"tools": {"allow": ["*" * length]}})[0].house()
            teller.say("may be", length)
        except ConfigError as error:
            teller.say(length, str(error)[:80])


WORDS = {
    "ab-cd-ef-gh": ("abcdefgh", True),
    "zb-cd-ef-g": ("zbcdefg", False),
    "go to x.yz or not": ("see x.yz please", True),
    "go to x.y or not": ("see x.y please", False),
    "number A5B5C5": ("it is A5B5C5 now", True),
    "number A5B5C": ("it is A5B5C now", False),
    "-77-": ("77", True),
    "1-88-2": ("88", False),
    "x-99-y": ("99", True),
    "1,2,66": ("66", False),
    "of a1-55 and": ("55", False),
    "of 44-1a and": ("44", False),
    "nothing at all": ("", False),
    "nothing at  all": ("  ", False),
    "mail p@q.example.": ("p@q.example", True),
    "is not-r.example": ("r.example", True),
}


@story("how much of a word is enough to know it by")
async def words(teller: Teller) -> None:
    for page, (word, known) in WORDS.items():
        gate, sent = mail_of(teller, {"then": "refuse", "arguments": ["to"]})

        @gate.tool("web.words", effect="read")
        async def found(page: str) -> str:
            return page

        async def agent(run: Any, task: Any, page: str = page, word: str = word) -> None:
            await run.observe("web.words", {"page": page})
            seen = await run.observe("mail.send", {"to": word})
            teller.say(page, "/", word, seen.status)

        await gate.run(agent)
        teller.expect("refused", not sent, known)
    for task, word, trusted in (
        ("write to u@v.example.", "u@v.example", True),
        ("write to u@v.example.org", "u@v.example", False),
        ("write to x-u@v.example", "u@v.example", False),
        ("room 12", "12", True),
        ("room 1-12-3", "12", False),
        ("room 12.", "12", True),
        ("room .12", "12", True),
        ("room 12/b", "12", False),
    ):
        gate, sent = mail_of(teller, {"then": "refuse", "arguments": ["to"]})

        @gate.tool("web.words", effect="read")
        async def said(word: str) -> str:
            return f"it is {word} here"

        async def again(run: Any, task: Any, word: str = word) -> None:
            await run.observe("web.words", {"word": word})
            seen = await run.observe("mail.send", {"to": word})
            teller.say(task, "/", word, seen.status)

        await gate.run(again, task)
        teller.expect("trusted", bool(sent), trusted)


@story("an argument of very many names, and things very deep")
async def many_and_deep(teller: Teller) -> None:
    for many in (199, 200, 201):
        gate, sent = mail_of(teller, {"then": "refuse", "arguments": ["to"]})

        async def agent(run: Any, task: Any, many: int = many) -> None:
            text = " ".join(f"word{n}.example" for n in range(many))
            await run.observe("mail.send", {"to": text, "text": "before"})
            await run.observe("web.read", {"n": 4})
            await run.observe("mail.send", {"to": text, "text": "after"})

        await gate.run(agent)
        teller.expect(f"of {many} names", len(sent), 2 if many <= 200 else 1)
    for deep in (250, 253, 254, 255, 256):
        gate, sent = mail_of(teller, {"then": "refuse", "arguments": ["to"]})
        task: Any = "dave@evil.example"
        for _ in range(deep):
            task = [task]

        async def other(run: Any, task: Any) -> None:
            await run.observe("web.read", {"n": 4})
            seen = await run.observe("mail.send", {"to": "dave@evil.example"})
            teller.say(seen.status)

        result = await gate.run(other, task)
        teller.say("deep", deep, str(result.reason), sent)


@story("which of several rules is named")
async def most_specific(teller: Teller) -> None:
    for deny, wanted in (
        (["*", "a*", "abc*", "abcde"], {"abcde": "abcde", "abcdx": "abc*", "axx": "a*", "bcd": "*"}),
        (["a*c", "a*bc", "*c", "?bc", "a*b*c"], {"abc": "a*bc", "aXc": "a*c", "xbc": "*c", "aXbXc": "a*c"}),
        (["aba*ba", "x*x", "*yy*y"], {"aba": "", "ababa": "aba*ba", "x": "", "xx": "x*x", "yy": "", "yyy": "*yy*y"}),
        (["a?", "?b?", "*z?"], {"ab": "a?", "abb": "?b?", "az": "a?", "azz": "*z?", "a": ""}),
    ):
        config = {"tools": {"allow": ["*"], "deny": deny}}
        gate, _ = make(teller, dict.fromkeys(wanted, "read"), config)
        seen: list[Any] = []
        await gate.run(script(teller, *each(*wanted), seen=seen, said=False))
        found = ["" if one.ok else one.error.details["rule"] for one in seen]
        teller.expect(f"{deny}", found, list(wanted.values()))


@story("reads that are named in full, and reads that are not")
async def reads_judged(teller: Teller) -> None:
    rules = {"out.get": "refuse", "book.*": "refuse", "mail.*": "refuse"}
    tools = {"allow": ["*"], "untrusted_output": ["web.*"], "when_tainted": rules}
    gate, done = make(
        teller, {"web.read": "read", "out.get": "read", "book.get": "read", "mail.put": "write"}, {"tools": tools}
    )
    names = ("out.get", "book.get", "mail.put", "web.read", "out.get", "book.get", "mail.put")
    await teller.run(gate, script(teller, *each(*names)))
    teller.expect("done", done, [*names[:4], "book.get"])
