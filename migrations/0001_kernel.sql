-- The schema's ground: who may use it, and what time it is.

grant usage on schema krilin to krilin_runtime;
alter default privileges in schema krilin grant select, insert, update, delete on tables to krilin_runtime;
alter default privileges in schema krilin grant usage, select on sequences to krilin_runtime;

-- The queue's clock. A function of its own, so that a test can replace it in its own database and let hours pass. (Not in the
-- language sql: what is less stable than its function is never put into the caller's statement, and so is parsed and planned
-- anew by every statement that asks for the time.)
create function krilin.now() returns timestamptz language plpgsql stable as 'begin return clock_timestamp(); end';
comment on function krilin.now() is 'The time by which leases and schedules are judged: the database''s, never a worker''s.';
