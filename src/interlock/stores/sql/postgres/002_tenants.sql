-- Row-level security: a role that does not own these tables sees the rows of one tenant, the one that its
-- transaction names (`set local interlock.tenant = 'acme'`), and none where it names none. The owner, under whose
-- role workers write for all tenants in one statement, is exempt.
create function this_tenant() returns text language sql stable parallel safe
  as $$ select nullif(current_setting('interlock.tenant', true), '') $$;

alter table requests enable row level security;
create policy of_tenant on requests using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table runs enable row level security;
create policy of_tenant on runs using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table journal enable row level security;
create policy of_tenant on journal using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table attempts enable row level security;
create policy of_tenant on attempts using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table turns enable row level security;
create policy of_tenant on turns using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table results enable row level security;
create policy of_tenant on results using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table tenant_spend enable row level security;
create policy of_tenant on tenant_spend using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table tenant_runs enable row level security;
create policy of_tenant on tenant_runs using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table calls enable row level security;
create policy of_tenant on calls using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());
alter table approvals enable row level security;
create policy of_tenant on approvals using (tenant_id = this_tenant()) with check (tenant_id = this_tenant());

-- A tenant sees what concerns it, and switches only itself off.
alter table switches enable row level security;
create policy seen on switches for select using (
  scope in ('global', 'agent', 'tool') or scope = 'tenant' and subject = this_tenant()
  or scope = 'run' and exists (select 1 from runs where run_id = subject)
);
create policy set_by_tenant on switches for all
  using (scope = 'tenant' and subject = this_tenant()) with check (scope = 'tenant' and subject = this_tenant());
alter table switch_events enable row level security;
create policy of_tenant on switch_events
  using (scope = 'tenant' and subject = this_tenant()) with check (scope = 'tenant' and subject = this_tenant());

-- `select admit('their_role')` lets a role in, bound to a tenant as above. Again after an upgrade.
create function admit(role name) returns void language plpgsql set search_path from current as $$
declare
  here text := current_schema();
begin
  execute format('grant usage on schema %I to %I', here, role);
  execute format('grant select on all tables in schema %I to %I', here, role);
  execute format('grant insert, update on %1$I.requests, %1$I.runs, %1$I.journal, %1$I.calls, %1$I.approvals, '
    '%1$I.attempts, %1$I.tenant_spend to %2$I', here, role);
  execute format('grant insert, update, delete on %1$I.writers, %1$I.turns, %1$I.results, %1$I.switches, '
    '%1$I.tenant_runs to %2$I', here, role);
  execute format('grant insert on %I.switch_events to %I', here, role);
  execute format('grant usage on all sequences in schema %I to %I', here, role);
end $$;
