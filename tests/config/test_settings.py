"""What a file says is what the settings hold: defaults, null, profiles, merging, paths."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from interlock.budget.loops import LoopOptions
from interlock.budget.meter import BudgetOptions
from interlock.config.settings import PROFILES, Settings, load_settings, profile_text, store_url
from interlock.config.tool_sections import LimitSettings
from interlock.core.calls import Effect, OnUnknown, Repeat
from interlock.core.errors import ConfigError
from interlock.core.reasons import StopReason
from interlock.policy.approval import ApprovalOptions
from interlock.policy.switches import SafeModeOptions
from interlock.record.lines import LoggingOptions
from interlock.resilience.admission import BreakerOptions, LimitOptions
from interlock.resilience.retry import RetryOptions
from interlock.supervisor.stopping import StopOptions
from interlock.validation.outputs import OutputOptions

# The article's "Safe default config", as data.
ARTICLE = {
    "agent": {
        "budgets": {"max_steps": 25, "max_seconds": 60, "max_tool_calls": 40, "max_usd": 1.0},
        "loop_detection": {"repeated_calls_threshold": 3, "no_progress_threshold": 6},
    },
    "tools": {
        "allow": ["search.read", "kb.read", "ticket.create"],
        "idempotency_required": ["ticket.create"],
        "timeouts_s": {"default": 10, "search.read": 5, "ticket.create": 15},
        "retries": {
            "max_attempts": 2,
            "retryable_status": [429, 500, 503, 504],
            "backoff_ms": [250, 750, 2000],
        },
        "circuit_breakers": {"enabled": True, "failure_threshold": 5, "window_seconds": 60},
    },
    "validation": {"input": {"strict": True}, "output": {"fail_closed": True}},
    "logging": {
        "level": "info",
        "structured": True,
        "include": ["run_id", "tool", "args_hash", "elapsed_s", "status", "stop_reason", "cost_usd"],
        "redact": ["authorization", "cookie", "token", "api_key"],
    },
    "safe_mode": {"enabled": False, "allowed_tools": ["search.read", "kb.read"]},
}


def write(path: Path, text: str) -> Path:
    file = path / "interlock.yaml"
    file.write_text(dedent(text), encoding="utf-8")
    return file


def test_the_articles_file_means_what_it_says(tmp_path):
    file = tmp_path / "safe_default.yaml"
    file.write_text(yaml.safe_dump(ARTICLE), encoding="utf-8")
    s = load_settings(file)
    b = s.agent.budgets
    assert (b.max_steps, b.max_seconds, b.max_tool_calls, b.max_usd) == (25, 60.0, 40, 1.0)
    assert b.max_unique_calls is None
    loops = s.agent.loop_detection
    assert (loops.repeated_calls_threshold, loops.no_progress_threshold) == (3, 6)
    assert s.tools.allow == ("search.read", "kb.read", "ticket.create")
    assert s.tools.idempotency_required == ("ticket.create",)
    assert s.tools.timeouts_s == {"default": 10.0, "search.read": 5.0, "ticket.create": 15.0}
    retries = s.tools.retries
    assert (retries.max_attempts, retries.retryable_status) == (2, frozenset({429, 500, 503, 504}))
    assert retries.backoff_ms == (250, 750, 2000)
    breaker = s.tools.circuit_breakers
    assert (breaker.enabled, breaker.failure_threshold, breaker.window_seconds) == (True, 5, 60.0)
    assert s.validation.input.strict
    assert s.validation.output.fail_closed
    assert (s.logging.level, s.logging.structured) == ("info", True)
    assert s.logging.include == ("run_id", "tool", "args_hash", "elapsed_s", "status", "stop_reason", "cost_usd")
    assert s.logging.redact == ("authorization", "cookie", "token", "api_key")
    assert not s.safe_mode.enabled
    assert s.safe_mode.allowed_tools == ("search.read", "kb.read")


def test_the_shipped_article_profile_is_the_articles_file():
    assert yaml.safe_load(profile_text("article")) == ARTICLE
    assert dataclasses.replace(load_settings(profile="article"), profile="default") == load_settings(ARTICLE)


def test_nothing_given_is_profile_default():
    s = load_settings()
    b = s.agent.budgets
    assert s == Settings()
    assert s.profile == "default"
    assert (b.max_steps, b.max_tool_calls, b.max_seconds, b.max_usd) == (250, 250, 900.0, 1.0)
    assert b.max_unique_calls is None
    assert (s.agent.loop_detection.repeated_calls_threshold, s.agent.loop_detection.no_progress_threshold) == (3, 6)
    assert s.tools.allow is None
    assert s.tools.dedupe_window_s == 86_400
    assert s.agent.stop_on == {
        StopReason.STEP_BUDGET,
        StopReason.TOOL_BUDGET,
        StopReason.TIME_BUDGET,
        StopReason.COST_BUDGET,
        StopReason.TOKEN_BUDGET,
        StopReason.LOOP_DETECTED,
        StopReason.NO_PROGRESS,
        StopReason.KILLED,
        StopReason.OUTCOME_UNKNOWN,
        StopReason.TOOL_AUTH_FAILED,
    }


def test_the_default_profile_file_states_the_defaults():
    stated = yaml.safe_load(profile_text("default"))
    assert load_settings(stated) == Settings()
    missing = {f.name for f in dataclasses.fields(Settings)} - set(stated) - {"profile"}
    assert missing == set()
    assert {f.name for f in dataclasses.fields(Settings().tools)} - set(stated["tools"]) == {"allow"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Settings().agent.budgets, BudgetOptions()),
        (Settings().agent.loop_detection, LoopOptions()),
        (Settings().logging, LoggingOptions()),
        (Settings().safe_mode, SafeModeOptions()),
        (Settings().tools.circuit_breakers, BreakerOptions()),
        (LimitSettings(), LimitOptions()),
    ],
)
def test_a_section_that_is_one_guards_options_has_their_defaults(ours, theirs):
    assert isinstance(ours, type(theirs))
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Settings().tools.retries, RetryOptions()),
        (Settings().approvals, ApprovalOptions()),
        (Settings().validation.output, OutputOptions()),
        (Settings().agent, StopOptions()),
    ],
)
def test_other_sections_agree_with_the_guards_where_they_share_a_word(ours, theirs):
    shared = {f.name for f in dataclasses.fields(ours)} & {f.name for f in dataclasses.fields(theirs)}
    assert shared
    assert {name: getattr(ours, name) for name in shared} == {name: getattr(theirs, name) for name in shared}


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_alone_and_as_the_file_that_init_writes(name, tmp_path):
    alone = load_settings(profile=name)
    written = load_settings(write(tmp_path, profile_text(name)))
    assert alone.profile == name
    assert (alone.tools, alone.agent, alone.safe_mode) == (written.tools, written.agent, written.safe_mode)


def test_support_reads_as_the_design_shows_it():
    s = load_settings(profile="support")
    assert s.tools.effects == {"*.read": Effect.READ}
    assert s.tools.writes["ticket.create"].on_unknown is OnUnknown.RESEND
    refund = s.tools.writes["refund.create"]
    assert (refund.on_unknown, refund.identity, refund.approval) == (OnUnknown.LOOKUP, ("order_id",), "required")
    assert s.tools.budgets["ticket.create"].max_calls == 5
    assert s.tools.deny == ("db.write", "email.send", "payment.*")


def test_coding_reads_as_the_design_shows_it():
    s = load_settings(profile="coding")
    b = s.agent.budgets
    assert (b.max_steps, b.max_tool_calls, b.max_seconds, b.max_usd) == (250, 250, 3600.0, 3.0)
    assert s.tools.writes["fs.write"].natural is True
    assert s.tools.writes["fs.write"].repeat is Repeat.ALLOW
    assert s.tools.writes["shell.run"].on_unknown is OnUnknown.TELL
    assert s.tools.writes["git.push"].on_unknown is None
    assert s.tools.timeouts_s == {"default": 30.0, "shell.run": 600.0}


def test_a_key_left_out_has_the_profiles_value_and_null_is_unlimited(tmp_path):
    file = write(
        tmp_path,
        """
        profile: article
        agent:
          budgets: {max_usd: null, max_steps: 7}
        """,
    )
    b = load_settings(file).agent.budgets
    assert (b.max_usd, b.max_steps, b.max_tool_calls) == (None, 7, 40)


def test_the_callers_profile_wins_over_the_files(tmp_path):
    s = load_settings(write(tmp_path, "profile: article"), profile="coding")
    assert (s.profile, s.agent.budgets.max_usd) == ("coding", 3.0)


def test_lists_of_a_profile_are_replaced_and_tables_are_joined():
    s = load_settings({"profile": "support", "tools": {"allow": ["kb.read"], "timeouts_s": {"kb.read": 3}}})
    assert s.tools.allow == ("kb.read",)
    assert s.tools.timeouts_s == {"default": 10.0, "ticket.create": 15.0, "refund.create": 30.0, "kb.read": 3.0}


def test_timeouts_without_a_default_keep_the_default():
    assert load_settings({"tools": {"timeouts_s": {"kb.read": 3}}}).tools.timeouts_s == {
        "default": 30.0,
        "kb.read": 3.0,
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "agent:\ntools:\n", "agent:\n  budgets:\n", "tools:\n  deny:\n"])
def test_sections_and_lists_left_empty_count_as_left_out(tmp_path, text):
    s = load_settings(write(tmp_path, text))
    assert (s.agent, s.tools) == (Settings().agent, Settings().tools)


def test_yes_no_on_and_off_are_words(tmp_path):
    assert load_settings(write(tmp_path, "replay: off")).replay == "off"
    assert load_settings(write(tmp_path, "replay: on")).replay == "on"


def test_a_mapping_may_hold_pythons_own_values(tmp_path):
    s = load_settings(
        {
            "record": {"path": tmp_path / "runs.jsonl"},
            "agent": {"stop_on": {StopReason.KILLED}},
            "tools": {
                "allow": ("a.read",),
                "effects": {"a.*": Effect.READ},
                "outcome": {"b.write": {409: "not_performed"}},
            },
        }
    )
    assert s.record.path == str(tmp_path / "runs.jsonl")
    assert s.agent.stop_on == {StopReason.KILLED}
    assert s.tools.outcome == {"b.write": {409: "not_performed"}}
    assert s.tools.effects == {"a.*": Effect.READ}


def test_every_further_key_arrives(tmp_path):
    s = load_settings(
        write(
            tmp_path,
            """
            mode: observe
            results: deferred
            shutdown_grace_s: 5
            prices_unknown: allow
            prices: {"openai:gpt-4o": {input_usd_per_mtok: 2.5, output_usd_per_mtok: 10}}
            approvals: {wait_s: 0, expires_s: 60}
            agent:
              max_refusals: 5
              on_stop: wrap_up
              stop_on: [killed]
              budgets: {max_tokens: 9, reserve_usd_per_turn: 0.5, max_unique_calls: 15}
              loop_detection: {exempt: ["job.poll", "status.*"]}
            tools:
              limits: {"web.fetch": {concurrency: 2, rate_per_s: 0.5, burst: 3, max_wait_s: 1}}
              invariants: {"refund.create": ["output.total >= 0"]}
              scopes: {"db.*": [admin]}
              outcome: {"order.create": {409: not_performed}}
              writes: {x.y: {repeat: ask, settle: 1}}
            """.replace(", settle: 1", ""),
        )
    )
    assert (s.mode, s.results, s.shutdown_grace_s, s.prices_unknown) == ("observe", "deferred", 5.0, "allow")
    assert s.prices["openai:gpt-4o"].output_usd_per_mtok == 10.0
    assert (s.approvals.wait_s, s.approvals.expires_s) == (0.0, 60.0)
    assert (s.agent.max_refusals, s.agent.on_stop, s.agent.stop_on) == (5, "wrap_up", {StopReason.KILLED})
    assert s.agent.budgets.max_tokens == 9
    assert s.agent.loop_detection.exempt == ("job.poll", "status.*")
    limit = s.tools.limits["web.fetch"]
    assert (limit.concurrency, limit.rate_per_s, limit.burst, limit.max_wait_s) == (2, 0.5, 3, 1.0)
    assert s.tools.invariants == {"refund.create": ("output.total >= 0",)}
    assert s.tools.scopes == {"db.*": ("admin",)}
    assert s.tools.outcome == {"order.create": {409: "not_performed"}}
    assert s.tools.writes["x.y"].repeat is Repeat.ASK


def test_tenants_narrow(tmp_path):
    s = load_settings(
        write(
            tmp_path,
            """
            tenants:
              acme: {allow: ["kb.*"], deny: ["kb.secret"], scopes: [reader], budgets: {max_usd: 0.25}}
            """,
        )
    )
    acme = s.tenants["acme"]
    assert (acme.allow, acme.deny, acme.scopes) == (("kb.*",), ("kb.secret",), ("reader",))
    assert (acme.budgets.max_usd, acme.budgets.max_steps) == (0.25, None)


def test_paths_in_a_file_are_taken_from_where_it_stands(tmp_path):
    s = load_settings(write(tmp_path, "store: sqlite:///data.db\nrecord: {path: runs.jsonl}\nlogging: {to: log.jsonl}"))
    assert s.store == f"sqlite:///{tmp_path}/data.db"
    assert s.record.path == f"{tmp_path}/runs.jsonl"
    assert s.logging.to == f"{tmp_path}/log.jsonl"


@pytest.mark.parametrize(
    ("stated", "url"),
    [
        (None, "sqlite:///{dir}/interlock.db"),
        ("data.db", "sqlite:///{dir}/data.db"),
        ("sqlite:////var/data.db", "sqlite:////var/data.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://db/interlock", "postgresql://db/interlock"),
    ],
)
def test_the_store_of_a_file(tmp_path, stated, url):
    s = load_settings(write(tmp_path, f"store: '{stated}'" if stated else "store: null"))
    assert store_url(s, environ={}) == url.format(dir=tmp_path)


def test_who_names_the_store():
    stated = load_settings({"store": "sqlite:///stated.db"})
    assert store_url(Settings(), environ={}) == "sqlite:///interlock.db"
    assert store_url(stated, environ={}) == "sqlite:///stated.db"
    assert store_url(stated, environ={"INTERLOCK_STORE": "env.db"}) == "sqlite:///env.db"
    assert store_url(stated, "asked.db", {"INTERLOCK_STORE": "env.db"}) == "sqlite:///asked.db"


def test_settings_cannot_be_changed():
    s = load_settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.agent.budgets.max_steps = 9


def test_an_unknown_profile_names_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"interlock.yaml:1: no profile is called 'suport'.*support"):
        load_settings(write(tmp_path, "profile: suport"))
    with pytest.raises(ConfigError, match="no profile is called"):
        load_settings(profile="nope")
    with pytest.raises(ConfigError, match="no profile is called"):
        profile_text("../settings")


def test_the_store_stays_where_the_file_was_when_the_process_moves_on(tmp_path, monkeypatch):
    write(tmp_path, "mode: observe")
    monkeypatch.chdir(tmp_path)
    assert load_settings("interlock.yaml").store == f"sqlite:///{tmp_path}/interlock.db"
