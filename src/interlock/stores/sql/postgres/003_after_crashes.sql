-- What is needed of a write whose worker is gone: its arguments, sealed, where the tool has a look-up and until the
-- claim is closed.
alter table journal add column args bytea;
-- What model turns under way have reserved, and what turns have cost that no record of a turn says.
alter table runs add column held_usd double precision not null default 0;
alter table runs add column held_tokens bigint not null default 0;
alter table runs add column spent_usd double precision not null default 0;
alter table runs add column spent_tokens bigint not null default 0;
-- Workers look for those that may go on.
create index runs_parked on runs (id) where state = 'parked';
