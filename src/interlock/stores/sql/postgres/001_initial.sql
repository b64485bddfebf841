-- Runs with `search_path` set to the store's own schema, which it creates nothing outside of.
-- Times are seconds since the Unix epoch by the clock of this server, as double precision.
create function now_s() returns double precision language sql stable parallel safe
  as $$ select extract(epoch from statement_timestamp())::double precision $$;

-- When this server was started. Until a lease's time has passed since, no lease has run out: its owner could not
-- renew it, and the last renewals may have been forgotten.
create function up_since_s() returns double precision language sql stable parallel safe
  as $$ select extract(epoch from pg_postmaster_start_time())::double precision $$;

-- What belongs to the store itself: `secret` keys every digest in it; made once, never changed.
create table meta (
  key   text collate "C" primary key,
  value bytea not null
);

-- One row a process that writes. A statement that was sent under an older epoch writes nothing, so that after a
-- cut connection it is certain what was written and what will never be.
create sequence writer_epochs;
create table writers (
  id      text collate "C" primary key,
  epoch   bigint not null,
  seen_at double precision not null
);

-- One row a request: who works on it, and the time that every effect key of it begins with.
-- `path` is the child path below the root run ('' for the root itself). Outlives its runs as a tombstone.
create table requests (
  tenant_id       text collate "C" not null,
  request_id      text collate "C" not null,
  path            text collate "C" not null,
  request_time_ms bigint not null,
  run_id          text collate "C" not null,
  primary key (tenant_id, request_id, path)
);

-- `running`, `queued` and `open` are columns, so that the small indexes of them serve those who look for such rows,
-- and nobody else: found through them, a row by its key would cost a walk over all that have been so since the last
-- vacuum.

-- One row a run; `id` is the order of arrival. `last_op` names the last change, so that one whose answer was lost
-- can be asked for again. `attempted_at` is when the present attempt began, `recorded` how much was on record by
-- then, `barren` how many attempts in a row died without adding to it, `used_s` the seconds of earlier attempts.
-- No index holds the lease, and there is room on each page: renewing it touches no index.
create table runs (
  id              bigint generated always as identity,
  run_id          text collate "C" primary key,
  tenant_id       text collate "C" not null,
  request_id      text collate "C" not null,
  root_run_id     text collate "C" not null,
  path            text collate "C" not null,
  agent           text collate "C" not null,
  request_time_ms bigint not null,
  payload_hash    text collate "C",
  state           text collate "C" not null check (state in ('queued', 'running', 'parked', 'ended')),
  reason          text collate "C",
  fence           bigint not null,
  attempts        integer not null,
  owner           text collate "C",
  lease_until_s   double precision,
  attempted_at    double precision,
  used_s          double precision not null default 0,
  recorded        bigint not null default 0,
  barren          integer not null default 0,
  started_at      double precision not null,
  ended_at        double precision,
  last_op         bigint not null,
  task            bytea,
  record          json,
  output          bytea,
  running         boolean not null generated always as (state = 'running') stored,
  queued          boolean not null generated always as (state = 'queued') stored,
  unique (tenant_id, run_id)
) with (fillfactor = 80);
create index runs_by_arrival on runs (id);
-- Partial, though it holds all rows, so that the check of foreign keys cannot take it for the shorter way to one run.
create index runs_by_tenant on runs (tenant_id, id) where id > 0;
create index runs_running on runs (id) where running;
create index runs_queued on runs (tenant_id, id) where queued;

-- Attempts that are over; the present one stands in its run's row.
create table attempts (
  tenant_id  text collate "C" not null,
  run_id     text collate "C" not null,
  fence      bigint not null,
  owner      text collate "C" not null,
  started_at double precision not null,
  ended_at   double precision,
  ended_as   text collate "C" not null,
  primary key (run_id, fence),
  foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);

-- One row an effect, in order of arrival. The key begins with the time of its request, so that its index stays
-- local and old rows can be purged by range. `result` is sealed; `evidence` is one JSON object a line.
create table journal (
  key           bytea primary key,
  tenant_id     text collate "C" not null,
  request_id    text collate "C" not null,
  run_id        text collate "C" not null,
  path          text collate "C" not null,
  agent         text collate "C" not null,
  tool          text collate "C" not null,
  args_digest   bytea not null,
  occurrence    integer not null,
  on_unknown    text collate "C" not null,
  sent_key      text collate "C" not null,
  state         text collate "C" not null check (state in ('intent', 'done', 'failed_clean', 'in_doubt')),
  fence         bigint not null,
  sender        text collate "C" not null,
  sends         integer not null,
  first_sent_at double precision not null,
  last_sent_at  double precision not null,
  turn          integer not null,
  seq           integer not null,
  last_op       bigint not null,
  verified      boolean not null default true,
  settled_at    double precision,
  settled_by    text collate "C" not null default '',
  settle_reason text collate "C" not null default '',
  evidence      text collate "C" not null default '',
  result        bytea,
  open          boolean not null generated always as (state in ('intent', 'in_doubt')) stored,
  foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create index journal_open on journal (key) where open;
create index journal_unverified on journal (key) where not verified;

-- What replay answers from: model turns, and the results of calls at their position.
create table turns (
  tenant_id text collate "C" not null,
  run_id    text collate "C" not null,
  path      text collate "C" not null,
  turn      integer not null,
  model     text collate "C" not null,
  usd       double precision not null,
  tokens    bigint not null,
  reply     bytea,
  primary key (run_id, path, turn),
  foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);
create table results (
  tenant_id   text collate "C" not null,
  run_id      text collate "C" not null,
  path        text collate "C" not null,
  turn        integer not null,
  tool        text collate "C" not null,
  args_digest bytea not null,
  nth         integer not null,
  seq         integer not null,
  status      text collate "C" not null,
  writes      boolean not null,
  value       bytea,
  error       bytea,
  primary key (run_id, path, turn, tool, args_digest, nth),
  foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);

-- The trace: one row a call, written in the background; `entry` is JSON without content.
create table calls (
  tenant_id text collate "C" not null,
  run_id    text collate "C" not null,
  seq       integer not null,
  entry     json not null,
  primary key (run_id, seq),
  foreign key (tenant_id, run_id) references runs (tenant_id, run_id)
);

-- `pattern` is the subject as LIKE reads it: `*` and `?` are all that globs of tools know.
create table switches (
  scope      text collate "C" not null check (scope in ('global', 'tenant', 'agent', 'tool', 'run')),
  subject    text collate "C" not null,
  kind       text collate "C" not null check (kind in ('kill', 'safe_mode')),
  reason     text collate "C" not null,
  actor      text collate "C" not null,
  set_at     double precision not null,
  expires_at double precision,
  pattern    text collate "C" generated always as (
    replace(replace(replace(replace(replace(subject, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%'), '?', '_')
  ) stored,
  primary key (scope, subject, kind)
);
-- Who switched what, for ever: a lifted switch leaves no other trace.
create table switch_events (
  id      bigint generated always as identity primary key,
  at      double precision not null,
  action  text collate "C" not null check (action in ('set', 'lift')),
  scope   text collate "C" not null,
  subject text collate "C" not null,
  kind    text collate "C" not null,
  reason  text collate "C" not null,
  actor   text collate "C" not null
);

create table approvals (
  n              bigint generated always as identity primary key,
  id             text collate "C" not null unique,
  effect_key     bytea not null,
  tenant_id      text collate "C" not null,
  run_id         text collate "C" not null,
  tool           text collate "C" not null,
  policy_version text collate "C" not null,
  rendered       text collate "C" not null,
  state          text collate "C" not null
    check (state in ('pending', 'approved', 'denied', 'expired', 'superseded', 'consumed')),
  requested_at   double precision not null,
  expires_at     double precision not null,
  decided_at     double precision,
  decided_by     text collate "C",
  decided_reason text collate "C"
);
create index approvals_of_effect on approvals (effect_key, policy_version);
create index approvals_open on approvals (tenant_id, n) where state = 'pending';

-- What tenants use over all their runs: dollars by UTC day, reserved ones included, and places of runs under way.
create table tenant_spend (
  tenant_id text collate "C" not null,
  day       text collate "C" not null,
  usd       double precision not null,
  primary key (tenant_id, day)
);
create table tenant_runs (
  tenant_id text collate "C" not null,
  run_id    text collate "C" not null,
  owner     text collate "C" not null,
  primary key (tenant_id, run_id)
);
