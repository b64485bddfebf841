"""What memory does, in forty lines of Python without a database: the judge of random histories."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st
from memory_scenes import NOW

from interlock.core.trust import Trust
from interlock.memory.fact import NewFact, State
from interlock.memory.scope import Scope
from interlock.memory.store import PurgePolicy, Search

# Names that spell each other wherever parts are joined, quoted, matched or folded.
HOSTILE = (
    "a",
    "A",
    "a:b",
    "a/b",
    "b",
    "a'; drop table memory_facts --",
    "%",
    "_",
    "*",
    '"a" OR "b"',
    "a\\",
    "ä",
    "a\u0308",
    " a",
    "null",
    "a\u200b",
)
names = st.sampled_from(HOSTILE)
scopes = st.one_of(
    st.builds(Scope, names),
    st.builds(Scope, names, names),
    st.builds(Scope, names, names, names),
)
WORDS = ("tea", "milk", "or", "near")
spots = st.integers(0, 5)
trusts = st.sampled_from(list(Trust))

operations = st.one_of(
    st.tuples(st.just("remember"), scopes, spots, st.sampled_from(WORDS), st.sampled_from((5.0, 50.0)), trusts),
    st.tuples(st.just("get"), scopes, spots),
    st.tuples(st.just("search"), scopes, st.sampled_from((*WORDS, ""))),
    st.tuples(st.just("forget"), scopes, spots, trusts),
    st.tuples(st.just("pin"), scopes, spots, trusts),
    st.tuples(st.just("verify"), scopes, spots, trusts),
    st.tuples(st.just("supersede"), scopes, spots, spots, trusts),
    st.tuples(st.just("quarantine"), scopes, spots),
    st.tuples(st.just("release"), scopes, spots, trusts),
    st.tuples(st.just("list"), scopes),
    st.tuples(st.just("purge"), scopes),
    st.tuples(st.just("erase"), scopes, st.sampled_from(WORDS)),
    st.tuples(st.just("wait"), st.sampled_from((1.0, 5.0, 45.0))),
)


@dataclass(frozen=True)
class Held:
    """A fact as the model holds it."""

    scope: Scope
    new: NewFact
    state: State
    trust: Trust
    by: str = ""


def id_of(scope: Scope, spot: int) -> str:
    """The same id in every tenant, so that ids alone can never tell tenants apart."""
    return f"mem_{spot:032x}"


class Model:
    """Facts by (tenant, id); every verb as `memory/store.py` words it."""

    def __init__(self):
        self.facts: dict[tuple[str, str], Held] = {}
        self.gone: set[tuple[str, str]] = set()
        self.now = NOW

    def alive(self, held):
        return self.now < held.new.expires_at

    def seen(self, scope, fact_id):
        held = self.facts.get((scope.tenant, fact_id))
        if held and held.state is State.ACTIVE and self.alive(held) and scope.sees(held.scope):
            return held
        return None

    def mine(self, scope, fact_id, trust, alive=True):
        held = self.facts.get((scope.tenant, fact_id))
        fits = held and held.state is State.ACTIVE and held.scope == scope and held.trust <= trust
        return held if fits and (self.alive(held) or not alive) else None

    def below(self, scope):
        return {place: held for place, held in self.facts.items() if scope.covers(held.scope)}

    def drop(self, place):
        """Take a fact out, and the versions before it that lie in its scope."""
        held = self.facts.pop(place)
        self.gone.add(place)
        for other, older in list(self.facts.items()):
            if other[0] == place[0] and older.by == place[1] and older.scope == held.scope:
                self.drop(other)


async def play(memory, history):
    """Play a history on a store and on the model; every answer must be the model's."""
    model = Model()
    for step in history:
        verb, *words = step
        if verb == "wait":
            model.now += words[0]
        else:
            await globals()[f"_{verb}"](memory, model, *words)


def _new(model, scope, spot, text, ttl_s, trust):
    return NewFact(
        fact_id=id_of(scope, spot),
        text=text,
        created_at=model.now,
        expires_at=model.now + ttl_s,
        subject=text,
        trust=trust,
    )


async def _remember(memory, model, scope, spot, text, ttl_s, trust):
    new = _new(model, scope, spot, text, ttl_s, trust)
    memory.remember_soon(scope, new)
    place = scope.tenant, new.fact_id
    if place not in model.gone and place not in model.facts:
        model.facts[place] = Held(scope, new, State.ACTIVE, trust)


async def _get(memory, model, scope, spot):
    fact = await memory.get(scope, id_of(scope, spot), model.now)
    held = model.seen(scope, id_of(scope, spot))
    assert (fact and (fact.scope, fact.text)) == (held and (held.scope, held.new.text))


async def _search(memory, model, scope, word):
    what = Search(words=(word,) if word else (), limit=200)
    found = {(hit.fact.scope.tenant, hit.fact.fact_id) for hit in await memory.search(scope, what, model.now)}
    expected = {
        place for place in model.facts if model.seen(scope, place[1]) and place[0] == scope.tenant
        and (not word or model.facts[place].new.text == word)
    }  # fmt: skip
    assert found == expected


async def _forget(memory, model, scope, spot, trust):
    held = model.mine(scope, id_of(scope, spot), trust, alive=False)
    assert await memory.forget(scope, id_of(scope, spot), trust) is bool(held)
    if held:
        model.drop((scope.tenant, held.new.fact_id))


async def _pin(memory, model, scope, spot, trust):
    held = model.mine(scope, id_of(scope, spot), trust)
    assert await memory.pin(scope, id_of(scope, spot), trust, model.now, pinned=True) is bool(held)


async def _verify(memory, model, scope, spot, trust):
    held = model.mine(scope, id_of(scope, spot), trust)
    assert await memory.verify(scope, id_of(scope, spot), trust, model.now, None) is bool(held)


async def _supersede(memory, model, scope, spot, older, trust):
    new = _new(model, scope, spot, "milk", 50.0, trust)
    fact = await memory.remember(scope, new, supersedes=id_of(scope, older))
    place, old = (scope.tenant, new.fact_id), (scope.tenant, id_of(scope, older))
    there = model.facts.get(place)
    if place in model.gone or (there and there.scope != scope):
        assert fact is None
    elif there:
        assert fact.text == there.new.text
    else:
        held = model.mine(scope, old[1], Trust.HIGH)
        assert (fact is not None) is bool(held)
        if held:
            stands = held.trust > trust
            state = State.QUARANTINED if stands else State.ACTIVE
            assert fact.state is state
            model.facts[place] = Held(scope, new, state, trust)
            if not stands:
                model.facts[old] = replace(held, state=State.SUPERSEDED, by=new.fact_id)


async def _quarantine(memory, model, scope, spot):
    place = scope.tenant, id_of(scope, spot)
    held = model.below(scope).get(place)
    fits = bool(held and held.state is State.ACTIVE)
    assert await memory.quarantine(scope, place[1]) is fits
    if fits:
        model.facts[place] = replace(held, state=State.QUARANTINED)


async def _release(memory, model, scope, spot, trust):
    place = scope.tenant, id_of(scope, spot)
    held = model.below(scope).get(place)
    fits = bool(held and held.state is State.QUARANTINED and model.alive(held))
    # What a released fact replaces is the contract's own test; here its scope is what matters.
    if fits and any(fact.supersedes for fact in await memory.show(scope, place[1])):
        return
    assert await memory.release(scope, place[1], trust, model.now) is fits
    if fits:
        model.facts[place] = replace(held, state=State.ACTIVE, trust=trust)


async def _list(memory, model, scope):
    listed = {(fact.scope, fact.fact_id) for fact in await memory.list_facts(scope, model.now, limit=500)}
    assert listed == {(held.scope, place[1]) for place, held in model.below(scope).items() if model.alive(held)}


async def _purge(memory, model, scope):
    over = [place for place, held in model.below(scope).items() if not model.alive(held)]
    assert await memory.purge(scope, PurgePolicy(), model.now) == len(over)
    for place in over:
        del model.facts[place]
        model.gone.add(place)


async def _erase(memory, model, scope, subject):
    erased = await memory.erase(scope, [subject])
    places = [place for place, held in model.below(scope).items() if held.new.subject == subject]
    before = set(model.facts)
    for place in places:
        if place in model.facts:
            model.drop(place)
    assert set(erased.fact_ids) == {place[1] for place in before - set(model.facts)}
