-- What agents remember: one row a version of a fact. "" stands for "shared" in user_id and session_id, and for "none"
-- in subject, key, supersedes and superseded_by. `scope_token` is one word that stands for the scope; `terms` are the
-- words of the text, each with the beginning of that token before it; `tags` is a JSON list of text, `origin` JSON. `id`
-- begins with the token too, so that facts of one scope lie together.
-- Times are Unix seconds.
create table memory_facts (
  id            integer primary key,
  fact_id       text    not null,
  tenant_id     text    not null,
  user_id       text    not null,
  session_id    text    not null,
  scope_token   text    not null,
  text          text    not null,
  terms         text    not null,
  value         blob,
  subject       text    not null,
  key           text    not null,
  tags          text    not null,
  trust         integer not null check (trust in (0, 1, 2)),
  state         text    not null check (state in ('active', 'quarantined', 'superseded')),
  pinned        integer not null default 0,
  created_at    real    not null,
  expires_at    real    not null,
  verify_by     real,
  verified_at   real,
  supersedes    text    not null default '',
  superseded_by text    not null default '',
  superseded_at real,
  origin        text    not null,
  vector        blob,
  unique (tenant_id, fact_id)
);
create index memory_by_scope on memory_facts (scope_token, state, subject, key);
create index memory_by_subject on memory_facts (tenant_id, subject) where subject <> '';
create index memory_history on memory_facts (tenant_id, superseded_by) where superseded_by <> '';
create index memory_by_expiry on memory_facts (expires_at);

-- The words of what agents may read, each joined to whose it is: a search never leaves its scope inside the index
-- already, and costs by what its scope holds, however common a word is elsewhere.
create virtual table memory_index using fts5 (
  terms, content = 'memory_facts', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);
create trigger memory_written after insert on memory_facts when new.state = 'active' begin
  insert into memory_index (rowid, terms) values (new.id, new.terms); end;
create trigger memory_deleted after delete on memory_facts when old.state = 'active' begin
  insert into memory_index (memory_index, rowid, terms) values ('delete', old.id, old.terms); end;
create trigger memory_hidden after update of state on memory_facts
  when old.state = 'active' and new.state <> 'active' begin
  insert into memory_index (memory_index, rowid, terms) values ('delete', old.id, old.terms); end;
create trigger memory_shown after update of state on memory_facts
  when old.state <> 'active' and new.state = 'active' begin
  insert into memory_index (rowid, terms) values (new.id, new.terms); end;

-- Ids of what was forgotten, purged or erased: a run that is resumed does not write it again.
create table memory_gone (
  tenant_id text not null,
  fact_id   text not null,
  at        real not null,
  primary key (tenant_id, fact_id)
) without rowid;

-- What is kept of validated outputs: canonical JSON, one a scope and name.
create table memory_artifacts (
  id         integer primary key,
  tenant_id  text    not null,
  user_id    text    not null,
  session_id text    not null,
  name       text    not null,
  data       blob    not null,
  subject    text    not null,
  trust      integer not null check (trust in (0, 1, 2)),
  created_at real    not null,
  expires_at real    not null,
  origin     text    not null,
  unique (tenant_id, user_id, session_id, name)
);
create index memory_artifacts_by_expiry on memory_artifacts (expires_at);
