-- What is needed of a write whose worker is gone: its arguments, sealed, where the tool has a look-up and until the
-- claim is closed; and when it was last sent in seconds since boot, which no change of the wall clock touches.
alter table journal add column args blob;
alter table journal add column last_sent_s real;
-- What model turns under way have reserved, and what turns have cost that no record of a turn says.
alter table runs add column held_usd real not null default 0;
alter table runs add column held_tokens integer not null default 0;
alter table runs add column spent_usd real not null default 0;
alter table runs add column spent_tokens integer not null default 0;
