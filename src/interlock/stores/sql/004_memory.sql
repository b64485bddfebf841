-- What agents remember: one row a version of a fact. "" stands for "shared" in user_id and session_id, and for "none"
-- in subject, key, supersedes and superseded_by. `scope_token` is one word that stands for the scope, so that the
-- index of words can hold it too; `tags` is a JSON list of text, `origin` JSON. Times are Unix seconds.
create table memory_facts (
  id            integer primary key,
  fact_id       text    not null,
  tenant_id     text    not null,
  user_id       text    not null,
  session_id    text    not null,
  scope_token   text    not null,
  text          text    not null,
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

-- The words of what agents may read, and whose they are: a search never leaves its scope, inside the index already.
create virtual table memory_index using fts5 (
  scope_token, text, content = 'memory_facts', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);
create trigger memory_written after insert on memory_facts when new.state = 'active' begin
  insert into memory_index (rowid, scope_token, text) values (new.id, new.scope_token, new.text); end;
create trigger memory_deleted after delete on memory_facts when old.state = 'active' begin
  insert into memory_index (memory_index, rowid, scope_token, text)
    values ('delete', old.id, old.scope_token, old.text); end;
create trigger memory_hidden after update of state on memory_facts
  when old.state = 'active' and new.state <> 'active' begin
  insert into memory_index (memory_index, rowid, scope_token, text)
    values ('delete', old.id, old.scope_token, old.text); end;
create trigger memory_shown after update of state on memory_facts
  when old.state <> 'active' and new.state = 'active' begin
  insert into memory_index (rowid, scope_token, text) values (new.id, new.scope_token, new.text); end;

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
