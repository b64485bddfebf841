"""What tools do is stated in a file, and a file that cannot be meant is refused by name."""

from __future__ import annotations

import pytest

from interlock.core.calls import Effect, OnUnknown, Repeat
from interlock.core.errors import ConfigError
from interlock.forensics.effects import SetEffects, ToolEffect, load_effects

SETS = (
    "tau_airline_gpt4o",
    "tau_retail_503",
    "agentrx_tau_retail",
    "tau2",
    "agentdojo",
    "livemcp",
    "letta_fs",
    "moatless",
    "mini_swe",
)

READ = ToolEffect(Effect.READ)
WRITE = ToolEffect(Effect.WRITE)


def test_our_file_states_every_shared_set():
    assert set(SETS) <= load_effects().keys()


@pytest.mark.parametrize(
    ("dataset", "tool", "effect"),
    [
        ("tau_retail_503", "get_order_details", READ),
        ("tau_retail_503", "return_delivered_order_items", WRITE),
        ("tau2", "toggle_roaming", ToolEffect(Effect.WRITE, OnUnknown.STOP, natural=False, repeat=Repeat.ALLOW)),
        ("tau2", "make_payment", WRITE),
        ("agentdojo", "send_money", WRITE),
        ("agentdojo", "delete_file", ToolEffect(Effect.WRITE, OnUnknown.RESEND, natural=True)),
        ("mini_swe", "bash", ToolEffect(Effect.WRITE, OnUnknown.TELL, natural=False, repeat=Repeat.ALLOW)),
        ("moatless", "EditAction:view", READ),
        ("letta_fs", "grep_files", READ),
        ("livemcp", "ppt.create_presentation", ToolEffect(Effect.WRITE, OnUnknown.TELL)),
    ],
)
def test_a_tool_is_what_its_set_says(dataset, tool, effect):
    assert load_effects()[dataset].of(tool) == effect


def test_an_unknown_tool_is_a_write_whose_doubt_stops():
    assert SetEffects().of("anything") == WRITE
    assert load_effects()["tau2"].of("drop_database") == WRITE


def test_writes_win_over_reads_and_natural_over_tell():
    effects = SetEffects(reads=("*",), writes=("put_*",), natural=("put_a",), tell=("put_*",), allow_repeat=("put_b",))
    assert effects.of("get") == READ
    assert effects.of("put_a") == ToolEffect(Effect.WRITE, OnUnknown.RESEND, natural=True)
    assert effects.of("put_b") == ToolEffect(Effect.WRITE, OnUnknown.TELL, repeat=Repeat.ALLOW)


def test_a_set_knows_of_which_tools_it_says_nothing():
    effects = SetEffects(reads=("get_*",), tell=("shell",))
    assert [effects.states(tool) for tool in ("get_x", "shell", "other")] == [True, True, False]


def test_a_users_file_has_the_same_shape(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("crm: {reads: ['get_*'], natural: [put], exempt: [poll], errors: {auth: 401, timeout: output}}")
    crm = load_effects(path)["crm"]
    assert (crm.of("get_x"), crm.of("put").natural, crm.exempt) == (READ, True, ("poll",))
    assert (crm.errors["auth"], crm.errors["timeout"], crm.errors["rate_limit"]) == (401, "output", 429)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- crm", "data sets by name"),
        ("crm: [get]", "mine.yaml: crm: an object"),
        ("crm: {reeds: [get]}", "unknown key 'reeds'"),
        ("crm: {reads: get_x}", "crm.reads: a list of globs"),
        ("crm: {reads: [1]}", "crm.reads: a list of globs"),
        ("crm: {errors: [auth]}", "crm.errors: kinds"),
        ("crm: {errors: {gone: 410}}", "unknown kind 'gone'"),
        ("crm: {errors: {auth: 200}}", "crm.errors.auth: a status"),
        ("crm: {errors: {auth: ignore}}", "crm.errors.auth: a status"),
        ("crm: {reads: [", "not YAML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(tmp_path, text, complaint):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml") as refused:
        load_effects(path)
    assert complaint in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load_effects(tmp_path / "gone.yaml")
