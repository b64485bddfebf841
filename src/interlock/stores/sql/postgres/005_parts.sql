-- The trace of a run under way is written in parts, of some calls each: `entry` is a list of them in JSON (one object
-- in rows of before). Parts are numbered in the order in which they were queued; of a call, the last word counts.
alter table calls rename column seq to part;
alter table calls alter column part type bigint;
