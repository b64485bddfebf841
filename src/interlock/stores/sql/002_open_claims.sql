-- Open claims in order of arrival: those of one commit share a page of the index, however many runs they belong to.
drop index journal_open;
create index journal_open on journal (id) where state in ('intent', 'in_doubt');
