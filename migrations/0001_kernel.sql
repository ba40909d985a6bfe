-- The schema's ground: who may use it, and what time it is.

grant usage on schema krilin to krilin_runtime;
alter default privileges in schema krilin grant select, insert, update, delete on tables to krilin_runtime;
alter default privileges in schema krilin grant usage, select on sequences to krilin_runtime;

-- The queue's clock. A function of its own, so that a test can replace it in its own database and let hours pass.
create function krilin.now() returns timestamptz language sql stable as 'select clock_timestamp()';
comment on function krilin.now() is 'The time by which leases and schedules are judged: the database''s, never a worker''s.';
