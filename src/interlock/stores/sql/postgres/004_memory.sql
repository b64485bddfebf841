-- What agents remember. Whoever reads or writes it names a scope for one transaction: `interlock.tenant`,
-- `interlock.user` and `interlock.session` ('' is what is shared), `interlock.now` (Unix seconds), and by
-- `interlock.reach` how far he means to go: `read` (an agent: upwards, what lives), `write` (an agent: exactly this
-- scope), `below` (an operator: this scope and all below it), `all` (the owner of these tables: every tenant). The
-- policies hold for the owner too, and where nothing is named no row is seen.
create table memory_facts (
  id            bigint generated always as identity,
  fact_id       text collate "C" not null,
  tenant_id     text collate "C" not null,
  user_id       text collate "C" not null,
  session_id    text collate "C" not null,
  state         text collate "C" not null check (state in ('active', 'quarantined', 'superseded')),
  trust         smallint not null,
  pinned        boolean not null default false,
  created_at    double precision not null,
  expires_at    double precision not null,
  verify_by     double precision,
  verified_at   double precision,
  superseded_at double precision,
  supersedes    text collate "C" not null default '',
  superseded_by text collate "C" not null default '',
  subject       text collate "C" not null default '',
  key           text collate "C" not null default '',
  text          text collate "C" not null,
  value         bytea,
  tags          text[] collate "C" not null default '{}',
  origin        json not null,
  vector        bytea,
  words         tsvector not null,
  primary key (tenant_id, fact_id),
  check (session_id = '' or user_id <> '')
);
-- Text search is not leakproof, so that under row-level security the scope comes first and words are filtered after
-- it: an index of words would cost every write, and serve no read.
create index memory_by_scope on memory_facts (tenant_id, user_id, session_id, created_at);
create index memory_by_subject on memory_facts (tenant_id, subject, key) where subject <> '' or key <> '';
create index memory_history on memory_facts (tenant_id, superseded_by) where superseded_by <> '';
create index memory_by_expiry on memory_facts (expires_at);

create table memory_artifacts (
  tenant_id  text collate "C" not null,
  user_id    text collate "C" not null,
  session_id text collate "C" not null,
  name       text collate "C" not null,
  trust      smallint not null,
  created_at double precision not null,
  expires_at double precision not null,
  subject    text collate "C" not null default '',
  origin     json not null,
  data       bytea not null,
  primary key (tenant_id, user_id, session_id, name),
  check (session_id = '' or user_id <> '')
);
create index memory_artifacts_by_expiry on memory_artifacts (expires_at);

-- Samples of values are kept by the server for its planner, outside of these tables: not of what people may want erased.
alter table memory_facts alter column text set statistics 0, alter column words set statistics 0,
  alter column value set statistics 0, alter column tags set statistics 0, alter column subject set statistics 0,
  alter column key set statistics 0, alter column origin set statistics 0, alter column user_id set statistics 0,
  alter column session_id set statistics 0, alter column vector set statistics 0;
alter table memory_artifacts alter column data set statistics 0, alter column name set statistics 0,
  alter column subject set statistics 0, alter column origin set statistics 0, alter column user_id set statistics 0,
  alter column session_id set statistics 0;
alter table approvals alter column rendered set statistics 0, alter column decided_reason set statistics 0;
alter table journal alter column evidence set statistics 0, alter column settle_reason set statistics 0;

-- Ids that are not written again: a resumed run would. Nothing of the fact is in them.
create table memory_gone (
  tenant_id text collate "C" not null,
  fact_id   text collate "C" not null,
  at        double precision not null,
  primary key (tenant_id, fact_id)
);

create function memory_reach() returns text language sql stable parallel safe
  as $$ select current_setting('interlock.reach', true) $$;
create function this_user() returns text language sql stable parallel safe
  as $$ select coalesce(current_setting('interlock.user', true), '') $$;
create function this_session() returns text language sql stable parallel safe
  as $$ select coalesce(current_setting('interlock.session', true), '') $$;
create function memory_now() returns double precision language sql stable parallel safe
  as $$ select nullif(current_setting('interlock.now', true), '')::double precision $$;

-- Written so that no date that cannot be one (NaN is greater than all others) is taken for a life.
create function memory_lives(created_at double precision, expires_at double precision) returns boolean
  language sql stable parallel safe
  return created_at - 300 <= memory_now() and memory_now() < expires_at and expires_at < 'Infinity';

-- Each setting is asked for once a statement, in a query of its own, and not once a row.
alter table memory_facts enable row level security;
alter table memory_facts force row level security;
create policy reading on memory_facts for select using (
  (select memory_reach()) = 'read' and tenant_id = (select this_tenant())
  and user_id in ('', (select this_user())) and session_id in ('', (select this_session()))
  and created_at - 300 <= (select memory_now()) and (select memory_now()) < expires_at and expires_at < 'Infinity');
create policy writing on memory_facts using (
  (select memory_reach()) = 'write' and tenant_id = (select this_tenant()) and user_id = (select this_user()) and session_id = (select this_session()));
create policy below on memory_facts using (
  (select memory_reach()) = 'below' and tenant_id = (select this_tenant())
  and (select this_user()) in ('', user_id) and (select this_session()) in ('', session_id));
create policy everything on memory_facts to current_user using ((select memory_reach()) = 'all');

alter table memory_artifacts enable row level security;
alter table memory_artifacts force row level security;
create policy reading on memory_artifacts for select using (
  (select memory_reach()) = 'read' and tenant_id = (select this_tenant())
  and user_id in ('', (select this_user())) and session_id in ('', (select this_session()))
  and created_at - 300 <= (select memory_now()) and (select memory_now()) < expires_at and expires_at < 'Infinity');
create policy writing on memory_artifacts using (
  (select memory_reach()) = 'write' and tenant_id = (select this_tenant()) and user_id = (select this_user()) and session_id = (select this_session()));
create policy below on memory_artifacts using (
  (select memory_reach()) = 'below' and tenant_id = (select this_tenant())
  and (select this_user()) in ('', user_id) and (select this_session()) in ('', session_id));
create policy everything on memory_artifacts to current_user using ((select memory_reach()) = 'all');

alter table memory_gone enable row level security;
alter table memory_gone force row level security;
create policy of_tenant on memory_gone using ((select memory_reach()) in ('write', 'below') and tenant_id = (select this_tenant()));
create policy everything on memory_gone to current_user using ((select memory_reach()) = 'all');

-- A superuser, and a role that bypasses row-level security, would not be bound by any of this: for what they do with
-- memory they become this role, for one transaction.
do $$
declare
  here text := current_schema();
begin
  if (select rolsuper or rolbypassrls from pg_roles where rolname = current_user) then
    begin
      create role interlock_memory nologin;
    exception
      when duplicate_object or unique_violation then null;
      -- Everything but memory works without it; memory says what is missing.
      when insufficient_privilege then return;
    end;
    if (select rolsuper or rolbypassrls from pg_roles where rolname = 'interlock_memory') then
      raise exception 'the role interlock_memory bypasses row-level security: alter role interlock_memory nosuperuser nobypassrls';
    end if;
    execute format('grant usage on schema %I to interlock_memory', here);
    execute format('grant select, insert, update, delete on %1$I.memory_facts, %1$I.memory_artifacts, %1$I.memory_gone '
      'to interlock_memory', here);
    execute format('create policy everything_else on %I.memory_facts to interlock_memory using (%I.memory_reach() = ''all'')', here, here);
    execute format('create policy everything_else on %I.memory_artifacts to interlock_memory using (%I.memory_reach() = ''all'')', here, here);
    execute format('create policy everything_else on %I.memory_gone to interlock_memory using (%I.memory_reach() = ''all'')', here, here);
  end if;
end $$;

create or replace function admit(role name) returns void language plpgsql set search_path from current as $$
declare
  here text := current_schema();
begin
  execute format('grant usage on schema %I to %I', here, role);
  execute format('grant select on all tables in schema %I to %I', here, role);
  execute format('grant insert, update on %1$I.requests, %1$I.runs, %1$I.journal, %1$I.calls, %1$I.approvals, '
    '%1$I.attempts, %1$I.tenant_spend to %2$I', here, role);
  execute format('grant insert, update, delete on %1$I.writers, %1$I.turns, %1$I.results, %1$I.switches, '
    '%1$I.tenant_runs, %1$I.memory_facts, %1$I.memory_artifacts, %1$I.memory_gone to %2$I', here, role);
  execute format('grant insert on %I.switch_events to %I', here, role);
  execute format('grant usage on all sequences in schema %I to %I', here, role);
end $$;
