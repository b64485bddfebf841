-- What belongs to the file itself: `secret` keys every digest in it; made once, never changed.
create table meta (
  key   text primary key,
  value blob not null
) without rowid;

-- One row a request: who works on it, and the time that every effect key of it begins with.
-- `path` is the child path below the root run ("" for the root itself). Outlives its runs as a tombstone.
create table requests (
  tenant_id       text    not null,
  request_id      text    not null,
  path            text    not null,
  request_time_ms integer not null,
  run_id          text    not null,
  primary key (tenant_id, request_id, path)
) without rowid;

-- One row a run; `id` is the order of arrival. The lease is in seconds since boot, beside the boot's id,
-- so that a change of the wall clock can neither end nor prolong it. `attempted_*` is when the present attempt
-- began (wall clock and boot), `recorded` how much was on record by then, `barren` how many attempts in a row died
-- without adding to it, `used_s` the seconds of earlier attempts.
create table runs (
  id              integer primary key,
  run_id          text    not null unique,
  tenant_id       text    not null,
  request_id      text    not null,
  root_run_id     text    not null,
  path            text    not null,
  agent           text    not null,
  request_time_ms integer not null,
  payload_hash    text,
  state           text    not null check (state in ('queued', 'running', 'parked', 'ended')),
  reason          text,
  fence           integer not null,
  attempts        integer not null,
  owner           text,
  boot_id         text,
  lease_until_s   real,
  attempted_at    real,
  attempted_s     real,
  used_s          real    not null default 0,
  recorded        integer not null default 0,
  barren          integer not null default 0,
  started_at      real    not null,
  ended_at        real,
  task            blob,
  record          blob,
  output          blob
);
create index runs_open on runs (state, lease_until_s) where state in ('queued', 'running', 'parked');
create index runs_by_tenant on runs (tenant_id, id);

-- Attempts that are over; the present one stands in its run's row.
create table attempts (
  run_id     text    not null,
  fence      integer not null,
  owner      text    not null,
  started_at real    not null,
  ended_at   real,
  ended_as   text    not null,
  primary key (run_id, fence)
) without rowid;

-- One row an effect, in order of arrival, so that the claims of one commit share pages however many runs they
-- belong to (a third of the cost of a commit). The key begins with the time of its request, so that the index of
-- keys stays local too. `result` is sealed (see stores/seal.py); `evidence` is one JSON object a line.
create table journal (
  id            integer primary key,
  key           blob    not null unique,
  tenant_id     text    not null,
  request_id    text    not null,
  run_id        text    not null,
  path          text    not null,
  agent         text    not null,
  tool          text    not null,
  args_digest   blob    not null,
  occurrence    integer not null,
  on_unknown    text    not null,
  sent_key      text    not null,
  state         text    not null check (state in ('intent', 'done', 'failed_clean', 'in_doubt')),
  fence         integer not null,
  sender        text    not null,
  sends         integer not null,
  first_sent_at real    not null,
  last_sent_at  real    not null,
  turn          integer not null,
  seq           integer not null,
  verified      integer not null default 1,
  settled_at    real,
  settled_by    text    not null default '',
  settle_reason text    not null default '',
  evidence      text    not null default '',
  result        blob
);
create index journal_open on journal (state, run_id) where state in ('intent', 'in_doubt');
create index journal_unverified on journal (key) where verified = 0;

-- What replay answers from: model turns, and the results of calls at their position.
create table turns (
  run_id text    not null,
  path   text    not null,
  turn   integer not null,
  model  text    not null,
  usd    real    not null,
  tokens integer not null,
  reply  blob,
  primary key (run_id, path, turn)
) without rowid;
create table results (
  run_id      text    not null,
  path        text    not null,
  turn        integer not null,
  tool        text    not null,
  args_digest blob    not null,
  nth         integer not null,
  seq         integer not null,
  status      text    not null,
  writes      integer not null,
  value       blob,
  error       blob,
  primary key (run_id, path, turn, tool, args_digest, nth)
) without rowid;

-- The trace: one row a call, written in the background; `entry` is JSON without content.
create table calls (
  run_id text    not null,
  seq    integer not null,
  entry  text    not null,
  primary key (run_id, seq)
) without rowid;

create table switches (
  scope      text not null check (scope in ('global', 'tenant', 'agent', 'tool', 'run')),
  subject    text not null,
  kind       text not null check (kind in ('kill', 'safe_mode')),
  reason     text not null,
  actor      text not null,
  set_at     real not null,
  expires_at real,
  primary key (scope, subject, kind)
) without rowid;
-- Who switched what, for ever: a lifted switch leaves no other trace.
create table switch_events (
  id      integer primary key,
  at      real not null,
  action  text not null check (action in ('set', 'lift')),
  scope   text not null,
  subject text not null,
  kind    text not null,
  reason  text not null,
  actor   text not null
);

create table approvals (
  n              integer primary key,
  id             text not null unique,
  effect_key     blob not null,
  tenant_id      text not null,
  run_id         text not null,
  tool           text not null,
  policy_version text not null,
  rendered       text not null,
  state          text not null
    check (state in ('pending', 'approved', 'denied', 'expired', 'superseded', 'consumed')),
  requested_at   real not null,
  expires_at     real not null,
  decided_at     real,
  decided_by     text,
  decided_reason text
);
create index approvals_of_effect on approvals (effect_key, policy_version);
create index approvals_open on approvals (tenant_id, n) where state = 'pending';

-- What tenants use over all their runs: dollars by UTC day, reserved ones included, and places of runs under way.
create table tenant_spend (
  tenant_id text not null,
  day       text not null,
  usd       real not null,
  primary key (tenant_id, day)
) without rowid;
create table tenant_runs (
  tenant_id text not null,
  run_id    text not null,
  owner     text not null,
  primary key (tenant_id, run_id)
) without rowid;
