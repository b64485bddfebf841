-- The trace of a run under way, in parts of some calls each: `entry` is a list of them in JSON (one object in rows of
-- before); of a call, the last word counts. In order of arrival, so that the parts of one commit share pages.
create table parts (
  id     integer primary key,
  run_id text not null,
  entry  text not null
);
insert into parts (run_id, entry) select run_id, entry from calls order by run_id, seq;
drop table calls;
alter table parts rename to calls;
create index calls_of_run on calls (run_id);
